"""Whose a mount is, as its description in Vault says it: ``leasegate {"cluster":"<uid>","owners":["demo/postgresql-engine"]}``.

engine writes it, roles reads it; both refuse a mount of another cluster. What an adopted mount had for a description stands before ours.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from dataclasses import dataclass, replace

from services.common.errors import VaultFailedError, VaultRefusedError
from services.common.vault import error_texts
from services.common.vault.client import Vault
from services.common.vault.response import VaultNotFoundError

DATABASE = "database"
_MARKER = re.compile(r"(?:(?P<before>.*) )?leasegate (?P<json>\{.*\})", re.DOTALL)


@dataclass(frozen=True, slots=True)
class Marker:
    """What Leasegate wrote into a mount's description.

    Attributes:
        cluster: uid of the cluster, ``-`` outside Kubernetes.
        owners: Who uses the mount, as ``namespace/name``.
        adopted: Whether the mount was there before us, and so is never removed.
        before: The description that an adopted mount had.
    """

    cluster: str
    owners: tuple[str, ...] = ()
    adopted: bool = False
    before: str = ""

    def with_owners(self, owners: Iterable[str]) -> Marker:
        """The same with other owners, sorted."""
        return replace(self, owners=tuple(sorted(set(owners))))

    def __str__(self) -> str:
        fields: dict[str, object] = {"cluster": self.cluster, "owners": list(self.owners)}
        if self.adopted:
            fields["adopted"] = True
        return f"{self.before} leasegate {_json(fields)}".lstrip()

    @classmethod
    def parse(cls, description: str) -> Marker | None:
        """Read a description; None where it is not ours."""
        found = _MARKER.fullmatch(description)
        if not found:
            return None
        try:
            fields = json.loads(found["json"])
            owners, cluster = fields["owners"], fields["cluster"]
        except (ValueError, KeyError, TypeError):
            return None
        if (
            not isinstance(cluster, str)
            or not isinstance(owners, list)
            or not all(isinstance(owner, str) for owner in owners)
        ):
            return None
        return cls(
            cluster=cluster, owners=tuple(owners), adopted=fields.get("adopted") is True, before=found["before"] or ""
        )


@dataclass(frozen=True, slots=True)
class Mount:
    """What is mounted at a path."""

    path: str
    type: str
    description: str

    @property
    def marker(self) -> Marker | None:
        """Ours, if it has one."""
        return Marker.parse(self.description) if self.type == DATABASE else None


def read_mount(vault: Vault, path: str) -> Mount | None:
    """What is mounted at exactly this path; None for nothing.

    Raises:
        LeasegateError: Vault refuses to say, or cannot be reached.
    """
    try:
        data = vault.read(f"sys/mounts/{path}").data
    except VaultNotFoundError:
        return None
    except VaultRefusedError as err:
        if error_texts.is_no_mount(err.message):
            return None
        raise
    return Mount(path=path, type=str(data.get("type", "")), description=str(data.get("description") or ""))


def being_removed(path: str) -> VaultFailedError:
    """The error for a mount that is there and yet answers nothing: an unmount of it has begun and could not be
    finished.

    That happens where leases cannot be revoked, and only another unmount brings it on.
    """
    return VaultFailedError(
        f"the mount {path} is being removed, and Vault waits for its leases to be revoked", path=path
    )


def _json(fields: dict[str, object]) -> str:
    return json.dumps(fields, separators=(",", ":"))
