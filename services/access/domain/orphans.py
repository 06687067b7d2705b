"""What ledger, Vault and PostgreSQL disagree about, pure: the finder reads, this compares."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum, auto
from typing import NamedTuple

from services.access.domain.models import AttemptState
from services.access.domain.names import ATTEMPT_ID_CHARS, DATABASE_USER_BYTES

_LIVE = frozenset({AttemptState.ISSUED, AttemptState.ACTIVE, AttemptState.RETIRING, AttemptState.REPLACED})
_LOGIN = re.compile(rf"token-[A-Za-z0-9-]*-([a-z0-9]{{{ATTEMPT_ID_CHARS}}})")
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

    server: str
    vault_namespace: str
    mount: str


@dataclass(frozen=True, slots=True)
class LeaseEntry:
    """What the ledger has of one attempt, or of one recovery of it.

    Attributes:
        place: Where.
        role: Name of the role, or of the cleanup role, in Vault.
        lease_id: Empty while it is not known.
        login: Name of the login.
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
    """One thing that is not explained; see ``leasegate.access.v1.Orphan``."""

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


def is_ours(role: str, *, known: Collection[str], cleanup_roles: str) -> bool:
    """Whether leases of this role are Leasegate's to explain.

    Args:
        role: Name in Vault.
        known: Roles that the ledger names.
        cleanup_roles: What the names of cleanup roles begin with.
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
        before: What was open in the ledger before Vault was asked.
        after: What is open since.
        listed: The lease ids in Vault, for each place that could be asked.
        ended: By lease id, what the ledger counts as ended.
        now: The time of ``after``.

    Returns:
        The orphans, and the places where something is under way that makes leases which are not in the ledger yet.
    """
    explained = {entry.lease_id for entry in (*before, *after)}
    in_doubt = [
        entry
        for entry in (*before, *after)
        if not entry.lease_id and entry.state not in (AttemptState.PENDING, AttemptState.TOKEN_READY)
    ]
    orphans, undecided = list[Orphan](), list[SkippedMount]()
    for place, ids in sorted(listed.items()):
        strange = sorted(set(ids) - explained)
        unknown = [lease_id for lease_id in strange if lease_id not in ended]
        if unknown and (busy := {entry.role for entry in in_doubt if entry.place == place}):
            waiting = [lease_id for lease_id in unknown if _role(place, lease_id) in busy]
            unknown = [lease_id for lease_id in unknown if lease_id not in waiting]
            if waiting:
                text = f"{len(waiting)} lease(s) may be of attempts that are being made or undone now: look again in some minutes"
                undecided.append(SkippedMount(place.server, place.mount, text))
        orphans += [_unknown(place, lease_id) for lease_id in unknown]
        orphans += [_ended(place, ended[lease_id]) for lease_id in strange if lease_id in ended]
        orphans += _missing(before, after, place=place, ids=ids, now=now)
    return orphans, undecided


def _unknown(place: Place, lease_id: str) -> Orphan:
    advice = (
        "If no other Leasegate and nobody by hand issues from this role, nobody will end it before its TTL: end it with"
        " `vault lease revoke -sync` and the lease id."
    )
    return Orphan(OrphanKind.LEASE_UNKNOWN, advice, place.mount, _role(place, lease_id), lease_id)


def _ended(place: Place, entry: LeaseEntry) -> Orphan:
    advice = "Vault said that it had ended: end it with `vault lease revoke -sync` and the lease id, and look for the login in PostgreSQL."
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
    advice = "It was ended in Vault by somebody else. It is replaced at its next renewal; `leasegate revoke` does so at once."
    seen = {entry.lease_id for entry in before if entry.state in _LIVE}
    for entry in after:
        alive = entry.state in _LIVE and entry.ends_at is not None and entry.ends_at > now
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


def attempt_id(login: str) -> str | None:
    """The attempt that a login's name says; None for a login that is not named as ours."""
    found = _LOGIN.fullmatch(login) if len(login) <= DATABASE_USER_BYTES else None
    return found[1] if found else None


def logins(seen: Sequence[str], known: Mapping[str, LeaseEntry]) -> list[Orphan]:
    """Compare logins of PostgreSQL.

    Args:
        seen: Their names, read before the ledger was.
        known: The attempts that these names say, as far as the ledger has them.
    """
    return [orphan for login in seen if (orphan := _login(login, known))]


def _login(login: str, known: Mapping[str, LeaseEntry]) -> Orphan | None:
    attempt = attempt_id(login)
    if attempt is None:
        return None
    entry = known.get(attempt)
    if entry is None:
        return Orphan(
            OrphanKind.DATABASE_USER_UNKNOWN,
            "No attempt of this ledger has made it: if no other Leasegate issues in this database, the ledger was lost or replaced, or has"
            " ended it so long ago that it does not remember."
            f" Look for its lease in Vault; if there is none: {_drop(login)}",
            username=login,
        )
    if entry.state is not AttemptState.CLOSED:
        return None
    advice = f"Its attempt has ended, so nobody will drop it: {_drop(login)}"
    return Orphan(
        OrphanKind.DATABASE_USER_CLOSED,
        advice,
        entry.place.mount,
        entry.role,
        username=login,
        request=entry.access_request_id,
    )


def _drop(login: str) -> str:
    return f'ALTER ROLE "{login}" NOLOGIN; REASSIGN OWNED BY "{login}" TO CURRENT_USER; DROP OWNED BY "{login}"; DROP ROLE "{login}";'
