"""The comparison of ledger, Vault and PostgreSQL, pure; ``services.access.worker.orphan_scan`` reads them."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum, auto
from typing import NamedTuple

from services.access.domain.attempt_states import LIVE, PREPARED
from services.access.domain.models import AttemptState
from services.access.domain.names import ATTEMPT_ID_CHARS, DATABASE_USER_BYTES

_DATABASE_USER = re.compile(rf"token-[A-Za-z0-9-]*-([a-z0-9]{{{ATTEMPT_ID_CHARS}}})")
_GUIDES_ROLE = "k8s."


class OrphanKind(Enum):
    """What is wrong with an orphan."""

    LEASE_UNKNOWN = auto()
    LEASE_CLOSED = auto()
    LEASE_MISSING = auto()
    DATABASE_USER_UNKNOWN = auto()
    DATABASE_USER_CLOSED = auto()


class Place(NamedTuple):
    """A mount at a Vault."""

    vault: str
    vault_namespace: str
    mount: str


@dataclass(frozen=True, slots=True)
class LeaseEntry:
    """What the ledger has of one attempt, or of one recovery of it.

    Attributes:
        place: Where.
        role: Name of the db_role, or of the cleanup role, in Vault.
        lease_id: Empty while it is not known.
        database_user: Name of its PostgreSQL role.
        access_request_id: Id of the access request.
        state: State of the attempt.
        ends_at: When the lease ends unless it is renewed.
    """

    place: Place
    role: str
    lease_id: str
    database_user: str
    access_request_id: str
    state: AttemptState
    ends_at: float | None


@dataclass(frozen=True, slots=True)
class Orphan:
    """A lease or database user that the ledger does not explain; see ``leasegate.access.v1.Orphan``."""

    kind: OrphanKind
    advice: str
    mount: str = ""
    role: str = ""
    lease_id: str = ""
    username: str = ""
    request: str = ""


@dataclass(frozen=True, slots=True)
class SkippedMount:
    """A mount that was not compared, or not wholly, and why."""

    address: str
    mount: str
    reason: str


@dataclass(frozen=True, slots=True)
class OrphanReport:
    """What a scan found.

    Attributes:
        orphans: What the ledger does not explain.
        skipped_mounts: What was not compared.
        leases_compared: How many leases of Vault were compared.
        database_users_compared: How many database users were compared whose name is one of Leasegate's.
    """

    orphans: tuple[Orphan, ...]
    skipped_mounts: tuple[SkippedMount, ...]
    leases_compared: int
    database_users_compared: int


def is_ours(role: str, *, known: Collection[str], cleanup_roles: str) -> bool:
    """Whether leases of this db_role are Leasegate's to explain.

    Args:
        role: Name in Vault.
        known: Names of db_roles in the ledger.
        cleanup_roles: Prefix of the names of cleanup roles.
    """
    return role in known or role.startswith((cleanup_roles, _GUIDES_ROLE))


def leases(
    before: Sequence[LeaseEntry],
    after: Sequence[LeaseEntry],
    *,
    listed: Mapping[Place, Collection[str]],
    ended: Mapping[str, LeaseEntry],
    now: float,
) -> tuple[list[Orphan], list[SkippedMount]]:
    """Compare leases.

    Args:
        before: Entries that were open in the ledger before Vault was read.
        after: Entries that were open afterwards.
        listed: The lease ids in Vault, of each mount that could be read.
        ended: By lease id, entries that are closed in the ledger.
        now: The time of ``after``.

    Returns:
        The orphans, and the mounts where issuance or recovery is under way, whose leases are not in the ledger yet.
    """
    explained = {entry.lease_id for entry in (*before, *after)}
    in_doubt = [entry for entry in (*before, *after) if not entry.lease_id and entry.state not in PREPARED]
    orphans, undecided = list[Orphan](), list[SkippedMount]()
    for place, ids in sorted(listed.items()):
        strange = sorted(set(ids) - explained)
        unknown = [lease_id for lease_id in strange if lease_id not in ended]
        if unknown and (busy := {entry.role for entry in in_doubt if entry.place == place}):
            waiting = [lease_id for lease_id in unknown if _role(place, lease_id) in busy]
            unknown = [lease_id for lease_id in unknown if lease_id not in waiting]
            if waiting:
                text = f"{len(waiting)} lease(s) may be of attempts in progress: scan again in some minutes"
                undecided.append(SkippedMount(place.vault, place.mount, text))
        orphans += [_unknown(place, lease_id) for lease_id in unknown]
        orphans += [_ended(place, ended[lease_id]) for lease_id in strange if lease_id in ended]
        orphans += _missing(before, after, place=place, ids=ids, now=now)
    return orphans, undecided


def _unknown(place: Place, lease_id: str) -> Orphan:
    advice = (
        "If neither another Leasegate nor a person issues from this role, nothing revokes it before its TTL: revoke it"
        " with `vault lease revoke -sync` and the lease id."
    )
    return Orphan(OrphanKind.LEASE_UNKNOWN, advice, place.mount, _role(place, lease_id), lease_id)


def _ended(place: Place, entry: LeaseEntry) -> Orphan:
    advice = (
        "Vault reported it as revoked before: revoke it with `vault lease revoke -sync` and the lease id, and look for"
        " the database user in PostgreSQL."
    )
    return Orphan(
        OrphanKind.LEASE_CLOSED,
        advice,
        place.mount,
        entry.role,
        entry.lease_id,
        entry.database_user,
        entry.access_request_id,
    )


def _missing(
    before: Sequence[LeaseEntry], after: Sequence[LeaseEntry], *, place: Place, ids: Collection[str], now: float
) -> Iterable[Orphan]:
    advice = (
        "Somebody else revoked it in Vault. It is replaced at its next renewal; `leasegate revoke` does so at once."
    )
    seen = {entry.lease_id for entry in before if entry.state in LIVE}
    for entry in after:
        alive = entry.state in LIVE and entry.ends_at is not None and entry.ends_at > now
        if entry.place == place and alive and entry.lease_id in seen and entry.lease_id not in ids:
            yield Orphan(
                OrphanKind.LEASE_MISSING,
                advice,
                place.mount,
                entry.role,
                entry.lease_id,
                entry.database_user,
                entry.access_request_id,
            )


def _role(place: Place, lease_id: str) -> str:
    return lease_id.removeprefix(f"{place.mount}/creds/").rpartition("/")[0]


def attempt_id(user: str) -> str | None:
    """The attempt in the name of a database user; None for a name that is not one of Leasegate's."""
    found = _DATABASE_USER.fullmatch(user) if len(user) <= DATABASE_USER_BYTES else None
    return found[1] if found else None


def database_users(seen: Sequence[str], known: Mapping[str, LeaseEntry]) -> list[Orphan]:
    """Compare database users.

    Args:
        seen: Names of PostgreSQL roles, read before the ledger was.
        known: By attempt id, the entries of the attempts in these names, as far as the ledger has them.
    """
    return [orphan for user in seen if (orphan := _database_user(user, known))]


def _database_user(user: str, known: Mapping[str, LeaseEntry]) -> Orphan | None:
    attempt = attempt_id(user)
    if attempt is None:
        return None
    entry = known.get(attempt)
    if entry is None:
        return Orphan(
            OrphanKind.DATABASE_USER_UNKNOWN,
            "No attempt of this ledger created it. If no other Leasegate issues in this database, the ledger was lost"
            " or replaced, or closed the attempt longer ago than --retention."
            f" Look for its lease in Vault; if there is none: {_drop(user)}",
            username=user,
        )
    if entry.state is not AttemptState.CLOSED:
        return None
    advice = f"Its attempt is closed, so nothing drops it any more: {_drop(user)}"
    return Orphan(
        OrphanKind.DATABASE_USER_CLOSED,
        advice,
        entry.place.mount,
        entry.role,
        username=user,
        request=entry.access_request_id,
    )


def _drop(user: str) -> str:
    return (
        f'ALTER ROLE "{user}" NOLOGIN; REASSIGN OWNED BY "{user}" TO CURRENT_USER; DROP OWNED BY "{user}";'
        f' DROP ROLE "{user}";'
    )
