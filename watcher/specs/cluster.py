"""The cluster that the watcher serves, and how its objects are named to the services. Pure."""

from __future__ import annotations

from dataclasses import dataclass

from leasegate.types.v1 import types_pb2
from services.common.names import vault_name
from watcher.kube.resources import Body, Key, generation_of, key_of, uid_of


@dataclass(frozen=True, slots=True)
class Cluster:
    """Which cluster the objects are in.

    Attributes:
        name: The operator's name for it; empty if none was given.
        uid: uid of its kube-system namespace.
    """

    name: str
    uid: str

    def ref(self, obj: Body) -> types_pb2.ObjectRef:
        """Name an object with its uid and generation."""
        key = key_of(obj)
        return types_pb2.ObjectRef(
            cluster=self.name,
            cluster_uid=self.uid,
            namespace=key.namespace,
            name=key.name,
            uid=uid_of(obj),
            generation=generation_of(obj),
        )

    def is_of(self, ref: types_pb2.ObjectRef) -> bool:
        """Whether a reference names an object of this cluster; access writes ``-`` for a cluster without a name."""
        return (ref.cluster or "-", ref.cluster_uid) == (self.name or "-", self.uid)

    def place(self, key: Key) -> types_pb2.ObjectRef:
        """Name an object by namespace and name alone, whatever its uid."""
        return types_pb2.ObjectRef(cluster=self.name, cluster_uid=self.uid, namespace=key.namespace, name=key.name)

    def app_binding_of(self, connection: str) -> Key | None:
        """The AppBinding of this cluster that a connection in Vault belongs to, by its name; None for any other."""
        prefix = f"k8s.{self.name or '-'}."
        namespace, dot, name = connection.removeprefix(prefix).partition(".")
        return Key(namespace, name) if connection.startswith(prefix) and dot else None

    def vault_name(self, key: Key) -> str:
        """The name in Vault of a db_role or connection."""
        return vault_name(self.name, key.namespace, key.name)
