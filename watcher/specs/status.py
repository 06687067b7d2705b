"""Status objects: what each kind's status remembers, with one reader and one writer a kind. Pure.

A status is what a deletion is remembered by: it names where in Vault things are. A value that is missing, unknown or
malformed reads as absent. Conditions are not part of these objects; ``watcher.kube.conditions`` merges them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, TypeVar

from leasegate.types.v1 import types_pb2
from services.common.vault_config.entries import vault_identity
from watcher.kube.resources import Body, Key, text_at
from watcher.specs.appbinding import target_ref

DECISIONS = ("Approved", "Denied")
"""Types of the conditions that approvers write; nothing else ever changes them."""

NOT_IN_FORCE = "PoliciesNotInForce"
"""Type of the condition that says so of the admission policies; ``watcher.reconcilers.policy_condition`` writes it."""


def status_of(obj: Body) -> Body:
    """The status as it stands; empty where there is none."""
    status = obj.get("status")
    return status if isinstance(status, dict) else {}


def conditions_of(obj: Body) -> list[Body]:
    """The conditions, as they stand."""
    found = status_of(obj).get("conditions")
    return [condition for condition in found if isinstance(condition, dict)] if isinstance(found, list) else []


def decision_conditions(obj: Body) -> list[Body]:
    """The approvers' conditions that hold, in the order of the status."""
    return [condition for condition in conditions_of(obj) if is_decision(condition)]


def is_decision(condition: Body) -> bool:
    """Whether a condition is an approver's and holds; one without a status does, as KubeVault wrote it in 2019."""
    return condition.get("type") in DECISIONS and condition.get("status", "True") == "True"


@dataclass(frozen=True, slots=True)
class TargetStatus:
    """The Vault that an object is in, without its secrets.

    Attributes:
        address: Where it was last known to be; a target without one counts as absent.
        namespace: Namespace of its AppBinding.
        name: Name of its AppBinding.
        cluster: The operator's name for the AppBinding's cluster.
        digest: Digest of what tells this Vault from others (``services.common.names.target_digest``).
        vault_namespace: Vault namespace; empty for root.
        vault: The oldest name of the operator's entry; empty where every Vault is allowed.
        answered: Whether this Vault has ever answered, so that a deletion waits for it.
    """

    address: str
    namespace: str = ""
    name: str = ""
    cluster: str = ""
    digest: str = ""
    vault_namespace: str = ""
    vault: str = ""
    answered: bool = False

    @classmethod
    def of(cls, target: types_pb2.VaultTarget, *, answered: bool = False) -> TargetStatus:
        """What a status keeps of a target."""
        return replace(cls.of_ref(target_ref(target)), answered=answered)

    @classmethod
    def of_ref(cls, ref: types_pb2.VaultTargetRef) -> TargetStatus:
        """A target that a service names."""
        return cls(
            address=ref.address,
            namespace=ref.namespace,
            name=ref.name,
            cluster=ref.cluster,
            digest=ref.digest,
            vault_namespace=ref.vault_namespace,
            vault=ref.vault,
        )

    @classmethod
    def from_fields(cls, value: object) -> TargetStatus | None:
        """Read ``status.target``; None where no Vault is named."""
        address = text_at(value, "address")
        if not address:
            return None
        return cls(
            address=address,
            namespace=text_at(value, "namespace"),
            name=text_at(value, "name"),
            cluster=text_at(value, "cluster"),
            digest=text_at(value, "digest"),
            vault_namespace=text_at(value, "vaultNamespace"),
            vault=text_at(value, "vault"),
            answered=isinstance(value, Mapping) and value.get("answered") is True,
        )

    def fields(self) -> Body:
        """``status.target``, without empty members."""
        found = {
            "cluster": self.cluster,
            "namespace": self.namespace,
            "name": self.name,
            "digest": self.digest,
            "address": self.address,
            "vaultNamespace": self.vault_namespace,
            "vault": self.vault,
            "answered": self.answered,
        }
        return {name: value for name, value in found.items() if value}

    @property
    def app_binding(self) -> Key:
        """The AppBinding that named this Vault."""
        return Key(self.namespace, self.name)

    def is_same_vault(self, target: types_pb2.VaultTarget) -> bool:
        """Whether a target is this very Vault, whatever its address is now and whatever authenticates there."""
        theirs = vault_identity(vault=target.vault, address=target.address, vault_namespace=target.vault_namespace)
        return theirs == vault_identity(vault=self.vault, address=self.address, vault_namespace=self.vault_namespace)


@dataclass(frozen=True, slots=True, kw_only=True)
class VaultObjectStatus:
    """What the statuses of SecretEngine and PostgresRole share: the outcome, and the place in Vault.

    Attributes:
        phase: Processing, Success or Failed.
        observed_generation: Number of the spec that the phase is about; 0 for none.
        target: The Vault; None where nothing was made in any.
        path: Path of the mount.
        connection: Name of the connection.
    """

    phase: str = ""
    observed_generation: int = 0
    target: TargetStatus | None = None
    path: str = ""
    connection: str = ""

    def is_at(self, target: types_pb2.VaultTarget, path: str) -> bool:
        """Whether the object is, or is about to be, on this mount of this Vault."""
        return self.target is not None and self.target.is_same_vault(target) and self.path == path

    @property
    def answered(self) -> bool:
        """Whether the Vault that the object is in has ever answered."""
        return self.target is not None and self.target.answered


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineStatus(VaultObjectStatus):
    """The status of a SecretEngine.

    Attributes:
        database: Address of the database that the connection leads to; empty while that is not known.
        identity: Identity of that database: where the connection led at its first success. An operator's move keeps it.
        plugin: Vault's plugin of the connection; empty while that is not known.
        moved_to: The operator's word that the same database moved, once it was used.
        ownership: Whether the mount is Owned or Adopted; empty until it is there.
        cluster_id: What the Vault says to be, for people to see; nothing is decided by it.
        version: Its version; likewise.
    """

    database: str = ""
    identity: str = ""
    plugin: str = ""
    moved_to: str = ""
    ownership: str = ""
    cluster_id: str = ""
    version: str = ""

    @classmethod
    def from_object(cls, obj: Body) -> EngineStatus:
        """Read a SecretEngine's status."""
        return cls(
            **_shared(obj),
            database=text_at(obj, "status", "database"),
            identity=text_at(obj, "status", "databaseIdentity"),
            plugin=text_at(obj, "status", "plugin"),
            moved_to=text_at(obj, "status", "movedTo"),
            ownership=text_at(obj, "status", "mount", "ownership"),
            cluster_id=text_at(obj, "status", "vault", "clusterID"),
            version=text_at(obj, "status", "vault", "version"),
        )

    def fields(self) -> Mapping[str, Any]:
        """The members of the status; None where one is absent."""
        mount = {"ownership": self.ownership} if self.ownership else None
        name = self.target.vault if self.target and (self.cluster_id or self.version) else ""
        vault = {"name": name, "clusterID": self.cluster_id, "version": self.version}
        return _shared_fields(self) | {
            "database": self.database or None,
            "databaseIdentity": self.identity or None,
            "plugin": self.plugin or None,
            "movedTo": self.moved_to or None,
            "mount": mount,
            "vault": {member: value for member, value in vault.items() if value} or None,
        }

    def without_place(self) -> EngineStatus:
        """The status of a SecretEngine that has nothing in any Vault."""
        return replace(
            self,
            target=None,
            path="",
            connection="",
            database="",
            identity="",
            plugin="",
            cluster_id="",
            version="",
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class RoleStatus(VaultObjectStatus):
    """The status of a PostgresRole.

    Attributes:
        db_role: Name of the Vault database role; empty until it is there.
        digest: Digest of the db_role as the role service has written it.
    """

    db_role: str = ""
    digest: str = ""

    @classmethod
    def from_object(cls, obj: Body) -> RoleStatus:
        """Read a PostgresRole's status."""
        return cls(**_shared(obj), db_role=text_at(obj, "status", "role"), digest=text_at(obj, "status", "digest"))

    def fields(self) -> Mapping[str, Any]:
        """The members of the status; None where one is absent."""
        return _shared_fields(self) | {"role": self.db_role or None, "digest": self.digest or None}

    def without_place(self) -> RoleStatus:
        """The status of a PostgresRole that has nothing in any Vault."""
        return replace(self, target=None, path="", connection="")


PlacedStatus = TypeVar("PlacedStatus", EngineStatus, RoleStatus)
"""A status that names a place in Vault."""


@dataclass(frozen=True, slots=True)
class LeaseStatus:
    """A lease as the guide prints it, and when it expires.

    Attributes:
        id: Vault's lease id.
        duration: Time from its last renewal to its expiry, such as ``1h0m0s``.
        renewable: Whether Vault renews it.
        expire_time: When it expires, RFC 3339.
    """

    id: str
    duration: str
    renewable: bool
    expire_time: str

    @classmethod
    def from_fields(cls, value: object) -> LeaseStatus | None:
        """Read ``status.lease``; None where there is none."""
        if not (lease_id := text_at(value, "id")):
            return None
        return cls(
            id=lease_id,
            duration=text_at(value, "duration"),
            renewable=isinstance(value, Mapping) and value.get("renewable") is True,
            expire_time=text_at(value, "expireTime"),
        )

    def fields(self) -> Body:
        """``status.lease``."""
        return {
            "id": self.id,
            "duration": self.duration,
            "renewable": self.renewable,
            "expireTime": self.expire_time,
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class RequestStatus:
    """The status of a DatabaseAccessRequest.

    Attributes:
        phase: WaitingForApproval, Approved, Denied or Expired.
        observed_generation: Number of the spec that the phase is about; 0 for none.
        digest: Digest of what would be granted now, which an approval names; empty while the db_role is not known.
        grant: The same in words, as the members of ``status.grant``; empty as the digest.
        lease: The lease whose credential is in the Secret; None for none.
        secret: Name of the Secret with the credential; empty for none.
        attempt: Number of the attempt whose credential is in the Secret; 0 for none.
    """

    phase: str = ""
    observed_generation: int = 0
    digest: str = ""
    grant: Body = field(default_factory=dict)
    lease: LeaseStatus | None = None
    secret: str = ""
    attempt: int = 0

    @classmethod
    def from_object(cls, obj: Body) -> RequestStatus:
        """Read a DatabaseAccessRequest's status."""
        status = status_of(obj)
        return cls(
            phase=text_at(status, "phase"),
            observed_generation=_number(status, "observedGeneration"),
            digest=text_at(status, "digest"),
            grant=grant if isinstance(grant := status.get("grant"), dict) else {},
            lease=LeaseStatus.from_fields(status.get("lease")),
            secret=text_at(status, "secret", "name"),
            attempt=_number(status, "attempt"),
        )

    def fields(self) -> Mapping[str, Any]:
        """The members of the status; None where one is absent."""
        return {
            "phase": self.phase or None,
            "observedGeneration": self.observed_generation or None,
            "digest": self.digest or None,
            "grant": self.grant or None,
            "lease": self.lease.fields() if self.lease else None,
            "secret": {"name": self.secret} if self.secret else None,
            "attempt": self.attempt or None,
        }

    def without_credential(self) -> RequestStatus:
        """The status of a request whose Secret holds no credential."""
        return replace(self, lease=None, secret="", attempt=0)


@dataclass(frozen=True, slots=True, kw_only=True)
class AppBindingStatus:
    """The status of an AppBinding, which has no more than conditions.

    Attributes:
        observed_generation: Number of the spec that the conditions are about; 0 for none.
    """

    observed_generation: int = 0

    @classmethod
    def from_object(cls, obj: Body) -> AppBindingStatus:
        """Read an AppBinding's status."""
        return cls(observed_generation=_number(status_of(obj), "observedGeneration"))

    def fields(self) -> Mapping[str, Any]:
        """The members of the status; None where one is absent."""
        return {"observedGeneration": self.observed_generation or None}


AnyStatus = TypeVar("AnyStatus", EngineStatus, RoleStatus, RequestStatus, AppBindingStatus)
"""The status of one kind."""


def _shared(obj: Body) -> dict[str, Any]:
    status = status_of(obj)
    return {
        "phase": text_at(status, "phase"),
        "observed_generation": _number(status, "observedGeneration"),
        "target": TargetStatus.from_fields(status.get("target")),
        "path": text_at(status, "path"),
        "connection": text_at(status, "connection"),
    }


def _shared_fields(status: VaultObjectStatus) -> dict[str, Any]:
    return {
        "phase": status.phase or None,
        "observedGeneration": status.observed_generation or None,
        "target": status.target.fields() if status.target else None,
        "path": status.path or None,
        "connection": status.connection or None,
    }


def _number(status: Body, name: str) -> int:
    """A positive whole number; 0 where there is none."""
    value = status.get(name)
    return value if isinstance(value, int) and not isinstance(value, bool) and value > 0 else 0
