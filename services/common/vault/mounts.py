"""Whose a mount is, as its description in Vault says.

``leasegate {"cluster":"<uid>","namespace":"demo","shared":["ns-b"],"owners":["demo/pg-engine","ns-b/pg-engine"]}``

engine writes the description and roles reads it. Both refuse a mount of another cluster, and one of a namespace that
does not share it. The description that an adopted mount had stays in front.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from dataclasses import dataclass, replace

from services.common.errors import VaultFailedError, VaultRefusedError
from services.common.sharing import SHARED_WITH, not_allowed
from services.common.vault import error_texts
from services.common.vault.client import Vault
from services.common.vault.response import VaultNotFoundError

DATABASE = "database"
MOST_OWNERS = 64
MOST_DESCRIPTION_BYTES = 16 << 10
"""Vault keeps all mounts in one entry of about 1 MiB: one long description could stop every new mount."""
_MARKER = re.compile(r"(?:(?P<before>.*) )?leasegate (?P<json>\{.*\})", re.DOTALL)


@dataclass(frozen=True, slots=True)
class Marker:
    """What Leasegate writes into a mount's description.

    Attributes:
        cluster: uid of the cluster, ``-`` outside Kubernetes.
        owners: The objects that use the mount, as ``namespace/name``.
        namespace: Namespace of the first owner, to which the mount belongs; empty outside Kubernetes.
        shared: Namespaces that may use the mount, too.
        adopted: Whether Leasegate did not enable the mount, and so never disables it.
        before: The description that an adopted mount had.
    """

    cluster: str
    owners: tuple[str, ...] = ()
    namespace: str = ""
    shared: tuple[str, ...] = ()
    adopted: bool = False
    before: str = ""

    def check_namespace(self, namespace: str, *, path: str) -> None:
        """Refuse an object of a namespace that may not use the mount.

        Raises:
            NotAllowedFromError: The mount is another namespace's, which does not share it.
        """
        if namespace != self.namespace and namespace not in self.shared:
            raise not_allowed(
                "the mount", path, owner=self.namespace, user=namespace, annotation=SHARED_WITH, on="SecretEngine"
            )

    def with_owners(self, owners: Iterable[str]) -> Marker:
        """Return the marker with other owners, sorted."""
        return replace(self, owners=tuple(sorted(set(owners))))

    def __str__(self) -> str:
        fields: dict[str, object] = {"cluster": self.cluster, "namespace": self.namespace}
        if self.shared:
            fields["shared"] = list(self.shared)
        fields["owners"] = list(self.owners)
        if self.adopted:
            fields["adopted"] = True
        return f"{self.before} leasegate {_json(fields)}".lstrip()

    @classmethod
    def parse(cls, description: str) -> Marker | None:
        """Parse a description; None where it has no marker."""
        found = _MARKER.fullmatch(description)
        if not found:
            return None
        try:
            fields = json.loads(found["json"])
            cluster, namespace = fields["cluster"], fields["namespace"]
            owners, shared = fields["owners"], fields.get("shared", [])
        except (ValueError, KeyError, TypeError):
            return None
        if not isinstance(cluster, str) or not isinstance(namespace, str) or not (_texts(owners) and _texts(shared)):
            return None
        return cls(
            cluster=cluster,
            owners=tuple(owners),
            namespace=namespace,
            shared=tuple(shared),
            adopted=fields.get("adopted") is True,
            before=found["before"] or "",
        )


@dataclass(frozen=True, slots=True)
class Mount:
    """What is mounted at a path."""

    path: str
    type: str
    description: str

    @property
    def marker(self) -> Marker | None:
        """The marker of Leasegate, if the description has one."""
        return Marker.parse(self.description) if self.type == DATABASE else None


def read_mount(vault: Vault, path: str) -> Mount | None:
    """Read what is mounted at exactly this path; None for nothing.

    Raises:
        LeasegateError: Vault refused or cannot be reached.
    """
    try:
        data = vault.read(f"sys/mounts/{path}").data
    except VaultNotFoundError:
        return None
    except VaultRefusedError as err:
        if error_texts.is_no_mount(err.vault_text):
            return None
        raise
    return Mount(path=path, type=str(data.get("type", "")), description=str(data.get("description") or ""))


def being_removed(path: str) -> VaultFailedError:
    """Make the error for a mount that exists and answers nothing, as an interrupted unmount leaves it.

    Vault leaves it so where it cannot revoke the leases; only another unmount continues.
    """
    return VaultFailedError(
        f"the mount {path} is being removed, and Vault waits for its leases to be revoked", path=path
    )


def _json(fields: dict[str, object]) -> str:
    return json.dumps(fields, separators=(",", ":"))


def _texts(value: object) -> bool:
    return isinstance(value, list) and all(isinstance(each, str) for each in value)
