"""A Vault server and how to authenticate there: the domain's form of ``leasegate.types.v1.VaultTarget``.

Services decode targets with ``VaultTarget.from_proto``. Nothing here does I/O.
"""

from __future__ import annotations

import ssl
from dataclasses import dataclass, field
from typing import ClassVar, TypeAlias

from leasegate.types.v1 import types_pb2
from services.common.errors import FieldViolation, SpecInvalidError
from services.common.names import DEFAULT_AUTH_MOUNTS, target_digest
from services.common.vault.paths import is_name, is_path, is_printable
from services.common.vault_config.address import Address, AddressError
from services.common.vault_config.entries import vault_identity


@dataclass(frozen=True, slots=True)
class KubernetesAuth:
    """A ServiceAccount's token for Vault's Kubernetes auth method."""

    default_mount: ClassVar[str] = DEFAULT_AUTH_MOUNTS["kubernetes"]
    mount: str
    auth_role: str
    jwt: str = field(repr=False)


@dataclass(frozen=True, slots=True)
class TokenAuth:
    """A Vault token of the team, which Leasegate never revokes."""

    token: str = field(repr=False)

    @property
    def mount(self) -> str:
        """Where it is looked up, for messages."""
        return "token"


@dataclass(frozen=True, slots=True)
class UserpassAuth:
    """User name and password for Vault's userpass auth method."""

    default_mount: ClassVar[str] = DEFAULT_AUTH_MOUNTS["userpass"]
    mount: str
    username: str
    password: str = field(repr=False)


@dataclass(frozen=True, slots=True)
class CertificateAuth:
    """A client certificate and its key, PEM; an empty ``auth_role`` lets Vault choose one by the certificate."""

    default_mount: ClassVar[str] = DEFAULT_AUTH_MOUNTS["certificate"]
    mount: str
    auth_role: str
    certificate: bytes = field(repr=False)
    private_key: bytes = field(repr=False)


@dataclass(frozen=True, slots=True)
class AppRoleAuth:
    """role_id and secret_id for Vault's AppRole auth method."""

    default_mount: ClassVar[str] = DEFAULT_AUTH_MOUNTS["app_role"]
    mount: str
    role_id: str
    secret_id: str = field(repr=False)


MAX_CA_BUNDLE = 64 * 1024
"""Bytes; access stores it for each address that an AppBinding has named."""

AuthMethod: TypeAlias = KubernetesAuth | TokenAuth | UserpassAuth | CertificateAuth | AppRoleAuth


@dataclass(frozen=True, slots=True)
class VaultTarget:
    """A Vault server, as an AppBinding or a service's configuration describes it.

    Attributes:
        name: Name of the AppBinding or of the config's entry.
        cluster: The AppBinding's cluster; empty outside Kubernetes.
        cluster_uid: uid of that cluster's kube-system namespace; empty outside Kubernetes.
        namespace: The AppBinding's namespace; empty outside Kubernetes.
        address: ``https://host:port``: as it was given, and after ``Vaults.resolve`` the one that is called.
        vault_namespace: Vault namespace of all calls; empty for root.
        ca_bundle: PEM certificates to trust; empty for the system's.
        insecure_skip_tls_verify: Whether the server's certificate goes unchecked.
        server_name: Name to check and send as SNI; empty for the address' host.
        auth: How to authenticate; None when the caller has no credentials for the server.
        vault: The entry that it is (``VaultEntry.identity``), or a name of it that a caller gave; empty for none.
    """

    name: str
    address: str
    cluster: str = ""
    cluster_uid: str = ""
    namespace: str = ""
    vault_namespace: str = ""
    ca_bundle: bytes = field(default=b"", repr=False)
    insecure_skip_tls_verify: bool = False
    server_name: str = ""
    auth: AuthMethod | None = field(default=None, repr=False)
    vault: str = ""

    @property
    def display(self) -> str:
        """``namespace/name`` for messages to people."""
        return f"{self.namespace}/{self.name}" if self.namespace else self.name

    @property
    def identity(self) -> str:
        """What tells this Vault from others: its entry, without one its address and Vault namespace."""
        return vault_identity(vault=self.vault, address=self.address, vault_namespace=self.vault_namespace)

    @property
    def digest(self) -> str:
        """16 hexadecimal digits of the identity: another digest is another target."""
        return target_digest(self.identity)

    @property
    def key(self) -> tuple[str, str, str, str]:
        """Key of the session in memory."""
        return (self.cluster, self.namespace, self.name, self.digest)

    def ref(self) -> types_pb2.VaultTargetRef:
        """The target without its auth, for callers to store."""
        return types_pb2.VaultTargetRef(
            cluster=self.cluster,
            namespace=self.namespace,
            name=self.name,
            digest=self.digest,
            address=self.address,
            vault_namespace=self.vault_namespace,
            vault=self.vault,
        )

    @classmethod
    def from_proto(cls, message: types_pb2.VaultTarget, *, path: str = "target") -> VaultTarget:
        """Decode and check a target.

        Args:
            message: As the caller sent it. An auth whose secret is empty counts as absent.
            path: Name of the field, for errors.

        Raises:
            SpecInvalidError: A field is wrong; no value of a secret field is quoted.
        """
        wrong = [FieldViolation(f"{path}.{name}", text) for name, text in _violations(message)]
        if wrong:
            raise SpecInvalidError.of(*wrong)
        return cls(
            name=message.source.name,
            address=message.address,
            cluster=message.source.cluster,
            cluster_uid=message.source.cluster_uid,
            namespace=message.source.namespace,
            vault_namespace=message.vault_namespace.strip("/"),
            ca_bundle=message.ca_bundle,
            insecure_skip_tls_verify=message.insecure_skip_tls_verify,
            server_name=message.server_name,
            auth=_auth(message) if _has_secret(message) else None,
            vault=message.vault,
        )

    @classmethod
    def from_ref(cls, message: types_pb2.VaultTargetRef, *, path: str = "target") -> VaultTarget:
        """Decode a reference to a target, which says nothing of how to authenticate.

        Args:
            message: As the caller sent it.
            path: Name of the field, for errors.

        Raises:
            SpecInvalidError: A field is wrong.
        """
        source = types_pb2.ObjectRef(cluster=message.cluster, namespace=message.namespace, name=message.name)
        described = types_pb2.VaultTarget(
            source=source,
            address=message.address,
            vault_namespace=message.vault_namespace,
            vault=message.vault,
        )
        return cls.from_proto(described, path=path)


def _auth(message: types_pb2.VaultTarget) -> AuthMethod | None:
    kind = message.WhichOneof("auth")
    if kind == "kubernetes":
        k = message.kubernetes
        return KubernetesAuth(mount=_mount(k.mount, KubernetesAuth.default_mount), auth_role=k.auth_role, jwt=k.jwt)
    if kind == "token":
        return TokenAuth(token=message.token.token)
    if kind == "userpass":
        u = message.userpass
        return UserpassAuth(mount=_mount(u.mount, UserpassAuth.default_mount), username=u.username, password=u.password)
    if kind == "certificate":
        c = message.certificate
        mount = _mount(c.mount, CertificateAuth.default_mount)
        return CertificateAuth(mount=mount, auth_role=c.auth_role, certificate=c.certificate, private_key=c.private_key)
    if kind == "app_role":
        a = message.app_role
        return AppRoleAuth(mount=_mount(a.mount, AppRoleAuth.default_mount), role_id=a.role_id, secret_id=a.secret_id)
    return None


def _mount(given: str, default: str) -> str:
    return given.strip("/") or default


_SECRET_FIELD = {
    "kubernetes": "jwt",
    "token": "token",
    "userpass": "password",
    "certificate": "private_key",
    "app_role": "secret_id",
}
_NAME_FIELD = {"kubernetes": "auth_role", "userpass": "username", "app_role": "role_id"}


def _has_secret(message: types_pb2.VaultTarget) -> bool:
    kind = message.WhichOneof("auth")
    return kind is not None and bool(getattr(getattr(message, kind), _SECRET_FIELD[kind]))


def _violations(message: types_pb2.VaultTarget) -> list[tuple[str, str]]:
    wrong: list[tuple[str, str]] = []
    try:
        Address.parse(message.address)
    except AddressError as err:
        wrong.append(("address", str(err)))
    if message.vault and not is_name(message.vault):
        wrong.append(("vault", "is no name of an entry of --vault-config"))
    if not message.source.name:
        wrong.append(("source.name", "is missing: it names the AppBinding or the entry of the configuration"))
    if message.vault_namespace and not is_path(message.vault_namespace.strip("/")):
        wrong.append(("vault_namespace", "is no path of a Vault namespace, such as team or org/team"))
    if message.server_name and not is_name(message.server_name):
        wrong.append(("server_name", "is no host name"))
    if len(message.ca_bundle) > MAX_CA_BUNDLE:
        wrong.append(("ca_bundle", f"has more than {MAX_CA_BUNDLE // 1024} KiB: give the one authority of this Vault"))
    elif message.ca_bundle and not message.insecure_skip_tls_verify and not _is_bundle(message.ca_bundle):
        wrong.append(("ca_bundle", "holds no PEM certificate that can be read"))
    return wrong + _auth_violations(message)


def _is_bundle(pem: bytes) -> bool:
    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_verify_locations(cadata=pem.decode("ascii"))
    except (ssl.SSLError, ValueError):
        return False
    return True


def _auth_violations(message: types_pb2.VaultTarget) -> list[tuple[str, str]]:
    kind = message.WhichOneof("auth")
    if kind is None or not _has_secret(message):
        return []
    auth = getattr(message, kind)
    wrong: list[tuple[str, str]] = []
    if kind != "token" and auth.mount and not is_path(auth.mount.strip("/")):
        wrong.append((f"{kind}.mount", "is no path of an auth mount, such as kubernetes"))
    name = _NAME_FIELD.get(kind)
    given = getattr(auth, name) if name else ""
    # Only userpass has the name in the path.
    if name and not (is_name(given) if kind == "userpass" else is_printable(given)):
        wrong.append((f"{kind}.{name}", "has characters that Vault takes in no name" if given else "is missing"))
    secret = getattr(auth, _SECRET_FIELD[kind])
    if isinstance(secret, str) and kind != "userpass" and not is_printable(secret):
        wrong.append(
            (
                f"{kind}.{_SECRET_FIELD[kind]}",
                "has blanks or characters that are not printable ASCII: look for a line end in the Secret",
            )
        )
    if kind == "certificate" and not auth.certificate:
        wrong.append(("certificate.certificate", "is missing"))
    return wrong
