"""Names of Kubernetes objects: kinds, keys and URL paths, and accessors for the metadata of an object. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple, TypeAlias
from urllib.parse import quote

Body: TypeAlias = dict[str, Any]
"""An object as the API server writes it in JSON."""


class Key(NamedTuple):
    """Namespace and name of an object whose kind is known from the context."""

    namespace: str
    name: str

    def __str__(self) -> str:
        return f"{self.namespace}/{self.name}"


@dataclass(frozen=True, slots=True)
class Resource:
    """One kind, and where the API server serves it.

    Attributes:
        kind: CamelCase name.
        plural: Name in URLs.
        group: API group; empty for the core group.
        version: API version.
    """

    kind: str
    plural: str
    group: str = ""
    version: str = "v1"

    @property
    def api_version(self) -> str:
        """``group/version``, or the version alone."""
        return f"{self.group}/{self.version}" if self.group else self.version

    def path(self, namespace: str = "", name: str = "", subresource: str = "") -> str:
        """The URL path of the collection, of one object, or of a subresource of it."""
        parts = ["apis", self.group, self.version] if self.group else ["api", self.version]
        parts += ["namespaces", namespace] if namespace else []
        parts += [part for part in (self.plural, name, subresource) if part]
        return "/" + "/".join(quote(part, safe="") for part in parts)


SECRET = Resource("Secret", "secrets")
CONFIG_MAP = Resource("ConfigMap", "configmaps")
SERVICE_ACCOUNT = Resource("ServiceAccount", "serviceaccounts")
EVENT = Resource("Event", "events")
NAMESPACE = Resource("Namespace", "namespaces")
SELF_SUBJECT_REVIEW = Resource("SelfSubjectReview", "selfsubjectreviews", "authentication.k8s.io")
ROLE = Resource("Role", "roles", "rbac.authorization.k8s.io")
ROLE_BINDING = Resource("RoleBinding", "rolebindings", "rbac.authorization.k8s.io")


def key_of(obj: Mapping[str, Any]) -> Key:
    """The namespace and name of an object."""
    meta = obj["metadata"]
    return Key(meta.get("namespace", ""), meta["name"])


def uid_of(obj: Mapping[str, Any]) -> str:
    """The uid; an object that is created again under the same name has another one."""
    return str(obj["metadata"].get("uid", ""))


def generation_of(obj: Mapping[str, Any]) -> int:
    """Number of the spec's version; a write of the status does not raise it."""
    return int(obj["metadata"].get("generation", 0))


def version_of(obj: Mapping[str, Any]) -> str:
    """The resourceVersion."""
    return str(obj["metadata"].get("resourceVersion", ""))


def annotation(obj: Mapping[str, Any], name: str) -> str:
    """The value of an annotation; empty where there is none."""
    return str((obj["metadata"].get("annotations") or {}).get(name, ""))


def is_deleting(obj: Mapping[str, Any]) -> bool:
    """Whether the object is being deleted, so that only its finalizers keep it."""
    return bool(obj["metadata"].get("deletionTimestamp"))


def has_finalizer(obj: Mapping[str, Any], finalizer: str) -> bool:
    """Whether the object has this finalizer."""
    return finalizer in (obj["metadata"].get("finalizers") or [])


def text_at(obj: object, *names: str) -> str:
    """The text at a path of members; empty where there is none, or a value of another type."""
    for name in names:
        obj = obj.get(name) if isinstance(obj, Mapping) else None
    return obj if isinstance(obj, str) else ""


def controller_uid(obj: Mapping[str, Any]) -> str:
    """Uid of the owner that controls this object; empty without one."""
    return str(_controller(obj).get("uid", ""))


def controller_name(obj: Mapping[str, Any]) -> str:
    """Name of the owner that controls this object; empty without one."""
    return str(_controller(obj).get("name", ""))


def _controller(obj: Mapping[str, Any]) -> Mapping[str, Any]:
    owners = obj["metadata"].get("ownerReferences") or []
    return next((owner for owner in owners if owner.get("controller")), {})
