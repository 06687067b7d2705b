"""The object on whose behalf a call is made: the domain's form of ``leasegate.types.v1.ObjectRef``."""

from __future__ import annotations

import re
from dataclasses import dataclass

from leasegate.types.v1 import types_pb2
from services.common.errors import FieldViolation, SpecInvalidError
from services.common.names import CLEANUP_ROLE_PREFIX, vault_name

NO_CLUSTER = "-"
_RESERVED_PREFIXES = ("k8s.", CLEANUP_ROLE_PREFIX)
_CLUSTER = re.compile(r"-|[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?|")
_UID = re.compile(r"[A-Za-z0-9-]{0,64}")
_NAMESPACE = re.compile(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?|")
# Kubernetes' DNS subdomains, and what Vault takes as the name of a role or connection.
_NAME = re.compile(r"[A-Za-z0-9_](?:[A-Za-z0-9_.-]{0,251}[A-Za-z0-9_])?")


@dataclass(frozen=True, slots=True)
class ObjectRef:
    """An object of Kubernetes, or what a caller outside named.

    Attributes:
        name: Name of the object.
        namespace: Its namespace; empty outside Kubernetes.
        cluster: The operator's name for the cluster, ``-`` or empty for none.
        cluster_uid: uid of the cluster's kube-system namespace; empty outside Kubernetes.
        uid: The object's uid.
        generation: Of the spec that the call carries.
    """

    name: str
    namespace: str = ""
    cluster: str = ""
    cluster_uid: str = ""
    uid: str = ""
    generation: int = 0

    @property
    def entry(self) -> str:
        """Its entry in the list of a mount's owners."""
        return f"{self.namespace}/{self.name}" if self.namespace else self.name

    @property
    def cluster_id(self) -> str:
        """Distinguishes clusters, also those of the same name."""
        return self.cluster_uid or NO_CLUSTER

    @property
    def cluster_name(self) -> str:
        """The operator's name for the cluster, empty for none."""
        return "" if self.cluster == NO_CLUSTER else self.cluster

    @property
    def vault_name(self) -> str:
        """Its name in Vault; outside Kubernetes the name itself."""
        return vault_name(self.cluster_name, self.namespace, self.name) if self.namespace else self.name

    @classmethod
    def from_proto(cls, message: types_pb2.ObjectRef, *, path: str = "owner") -> ObjectRef:
        """Decode and check.

        Args:
            message: As the caller sent it.
            path: Name of the field, for errors.

        Raises:
            SpecInvalidError: A field is wrong.
        """
        wrong = [FieldViolation(f"{path}.{name}", text) for name, text in _violations(message)]
        if wrong:
            raise SpecInvalidError.of(*wrong)
        return cls(
            name=message.name,
            namespace=message.namespace,
            cluster=message.cluster,
            cluster_uid=message.cluster_uid,
            uid=message.uid,
            generation=message.generation,
        )


def is_vault_object(name: str) -> bool:
    """Whether the text may be the name of a role or connection in Vault."""
    return _NAME.fullmatch(name) is not None


def _violations(message: types_pb2.ObjectRef) -> list[tuple[str, str]]:
    wrong: list[tuple[str, str]] = []
    if not is_vault_object(message.name):
        wrong.append(
            ("name", "is missing" if not message.name else "is no name: letters, digits, '.', '_' and '-', at most 253")
        )
    elif not message.namespace and message.name.startswith(_RESERVED_PREFIXES):
        wrong.append(
            (
                "name",
                f"begins with {' or '.join(_RESERVED_PREFIXES)}, which are for objects of Kubernetes and cleanup roles",
            )
        )
    if not _NAMESPACE.fullmatch(message.namespace):
        wrong.append(("namespace", "is no name of a namespace"))
    if not _CLUSTER.fullmatch(message.cluster):
        wrong.append(("cluster", "is no name of a cluster: at most 63 of a-z, 0-9 and '-'"))
    if not _UID.fullmatch(message.cluster_uid):
        wrong.append(("cluster_uid", "is no uid"))
    if message.generation < 0:
        wrong.append(("generation", "is negative"))
    return wrong
