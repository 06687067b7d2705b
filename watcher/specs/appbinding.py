"""AppBinding: where its server is, and how to authenticate there. Pure.

Secrets and tokens are read by ``watcher.reconcilers.vault_targets``.

The parameters of a Vault are read in both shapes, flat as the guide has them (``serviceAccountName``, ``vaultRole`` or
``policyControllerRole``, ``path``) and nested (``kubernetes.serviceAccountName``).
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TypeAlias
from urllib.parse import urlsplit

from leasegate.types.v1 import types_pb2
from services.common.errors import FieldViolation, SpecInvalidError
from services.common.names import target_digest
from services.common.vault_config.entries import TeamAuth, VaultEntry, vault_identity
from watcher.kube.resources import Body, Key, key_of
from watcher.specs.cluster import Cluster
from watcher.specs.fields import Fields

ServiceAddresses: TypeAlias = Mapping[tuple[str, str], tuple[str, int]]
"""Where a Service (namespace or ``*``, name) is reached from outside its cluster: host and port."""

SECRET_METHODS: Mapping[str, str] = {
    "kubevault.com/token": "token",
    "kubernetes.io/basic-auth": "userpass",
    "kubernetes.io/tls": "certificate",
    "leasegate.dev/approle": "approle",
}
"""By type of a Secret that authenticates to Vault: the name of its auth method."""
KUBERNETES = "kubernetes"
_LEGACY_TOKEN = "kubernetes.io/service-account-token"  # noqa: S105 - a type
DATABASE_TYPES = ("kubernetes.io/basic-auth", "leasegate.dev/database")
"""Types of Secrets that are made for a database: of others only ``DATABASE_KEYS`` are read."""
DATABASE_KEYS = ("username", "password")


@dataclass(frozen=True, slots=True)
class ServiceAccountAuth:
    """Authenticate with a token that is made for the ServiceAccount.

    Attributes:
        account: Its name, in the AppBinding's namespace.
        role: Vault's auth role.
        mount: Path of the auth mount; empty for the default.
    """

    account: str
    role: str
    mount: str


@dataclass(frozen=True, slots=True)
class SecretAuth:
    """Authenticate with the content of a Secret, by its type.

    Attributes:
        secret: Its name, in the AppBinding's namespace.
        role: Vault's auth role, or the certificate role.
        mount: Path of the auth mount; empty for the default.
    """

    secret: str
    role: str
    mount: str


@dataclass(frozen=True, slots=True)
class SecretContent:
    """A Secret's type and its values, decoded."""

    type: str
    data: Mapping[str, bytes] = field(repr=False)


def vault_address(binding: Body, *, cluster: Cluster, addresses: ServiceAddresses) -> types_pb2.VaultTarget:
    """Read where an AppBinding says that a Vault is, without what authenticates there.

    ``vault`` is the name of the operator's entry in ``spec.parameters``, and empty where it gives none.

    Raises:
        SpecInvalidError: Fields of the AppBinding are wrong.
    """
    fields = _spec(binding)
    config, parameters = fields.child("clientConfig", required=True), fields.child("parameters")
    found = types_pb2.VaultTarget(
        source=cluster.ref(binding),
        address=_vault_url(config) if config.text("url") else _service_url(config, binding, addresses),
        vault_namespace=parameters.text("namespace").strip("/"),
        ca_bundle=config.base64("caBundle"),
        insecure_skip_tls_verify=config.flag("insecureSkipTLSVerify"),
        server_name=config.text("serverName"),
        vault=parameters.text("vault"),
    )
    fields.check()
    return found


def as_in_entry(described: types_pb2.VaultTarget, entry: VaultEntry) -> types_pb2.VaultTarget:
    """A Vault as the operator's file names it: of the AppBinding only its name is left."""
    return types_pb2.VaultTarget(
        source=described.source,
        vault=entry.identity,
        address=entry.address,
        vault_namespace=entry.vault_namespace,
    )


def settings_not_used(described: types_pb2.VaultTarget, *, ca: bytes | None) -> list[str]:
    """Fields of ``spec.clientConfig`` that differ from the operator's entry, and so have no effect.

    Args:
        described: The Vault as the AppBinding describes it.
        ca: The certificates that the entry trusts; None where they cannot be read here.
    """
    found = []
    if described.ca_bundle and ca is not None and described.ca_bundle.split() != ca.split():
        found.append("caBundle")
    if described.insecure_skip_tls_verify:
        found.append("insecureSkipTLSVerify")
    if described.server_name:
        found.append("serverName")
    return found


def auth_plan(binding: Body, allowed: TeamAuth) -> ServiceAccountAuth | SecretAuth:
    """Read how to authenticate to a Vault: by ``serviceAccountName`` if given, else by the type of ``spec.secret``.

    Args:
        binding: The AppBinding.
        allowed: What the operator allows.

    Raises:
        SpecInvalidError: The AppBinding names neither, names what the operator does not allow, or fields are wrong.
    """
    fields = _spec(binding)
    parameters = fields.child("parameters")
    nested = parameters.child("kubernetes")
    role = parameters.text("vaultRole") or parameters.text("policyControllerRole")
    chooses = nested if nested.text("serviceAccountName") else parameters
    account = chooses.text("serviceAccountName")
    secret, mount = fields.child("secret").text("name"), parameters.text("path").strip("/")
    if account and not role:
        parameters.wrong("vaultRole", "is missing: it names the auth role of Vault")
    if not account and not secret:
        fields.wrong(
            "parameters.serviceAccountName", "is missing: it, or spec.secret, names what authenticates to Vault"
        )
    if account and account not in allowed.service_accounts:
        names = ", ".join(allowed.service_accounts) or "none"
        chooses.wrong("serviceAccountName", f"is {account}, but the operator lets tokens be made for these: {names}")
    for each in (nested, parameters):
        if each.text("audience") not in ("", allowed.token_audience):
            each.wrong("audience", f"must be {allowed.token_audience}, the operator's choice, or be left out")
    if mount and allowed.mounts and mount not in allowed.mounts:
        parameters.wrong("path", f"is {mount}, but the operator allows these auth mounts: {', '.join(allowed.mounts)}")
    if account and KUBERNETES not in allowed.methods:
        chooses.wrong("serviceAccountName", _not_allowed(KUBERNETES, allowed))
    if not account and secret and not set(allowed.methods) & set(SECRET_METHODS.values()):
        parameters.wrong(
            "serviceAccountName",
            "is missing: it names the ServiceAccount to authenticate by, as the operator allows no method that takes a"
            " Secret",
        )
    fields.check()
    if account:
        return ServiceAccountAuth(account=account, role=role, mount=mount)
    return SecretAuth(secret=secret, role=role, mount=mount)


def _not_allowed(method: str, allowed: TeamAuth) -> str:
    return f"needs the auth method {method}, but the operator allows these: {', '.join(allowed.methods)}"


def set_token_auth(target: types_pb2.VaultTarget, plan: ServiceAccountAuth, jwt: str) -> None:
    """Set a ServiceAccount's token as what authenticates to the Vault."""
    target.kubernetes.CopyFrom(types_pb2.KubernetesAuth(mount=plan.mount, auth_role=plan.role, jwt=jwt))


def set_secret_auth(target: types_pb2.VaultTarget, plan: SecretAuth, content: SecretContent, allowed: TeamAuth) -> None:
    """Set the content of a Secret as what authenticates to the Vault.

    Raises:
        SpecInvalidError: The Secret's type is none of ``SECRET_METHODS``, the operator does not allow its method, or a
            key is missing. No value is quoted.
    """
    value = _Values(plan.secret, content)
    method = SECRET_METHODS.get(content.type)
    if method and method not in allowed.methods:
        value.wrong("type", f"is {content.type}, which {_not_allowed(method, allowed)}")
    elif content.type == _LEGACY_TOKEN:
        value.wrong(
            "type",
            f"is {_LEGACY_TOKEN}, whose token never expires and is one for Kubernetes as well: leave the Secret out and"
            " name the ServiceAccount in parameters.serviceAccountName",
        )
    elif content.type == "kubevault.com/token":
        target.token.CopyFrom(types_pb2.TokenAuth(token=value.text("token")))
    elif content.type == "kubernetes.io/basic-auth":
        target.userpass.CopyFrom(
            types_pb2.UserpassAuth(mount=plan.mount, username=value.text("username"), password=value.text("password"))
        )
    elif content.type == "kubernetes.io/tls":
        auth = types_pb2.CertificateAuth(
            mount=plan.mount, auth_role=plan.role, certificate=value.raw("tls.crt"), private_key=value.raw("tls.key")
        )
        target.certificate.CopyFrom(auth)
    elif content.type == "leasegate.dev/approle":
        target.app_role.CopyFrom(
            types_pb2.AppRoleAuth(mount=plan.mount, role_id=value.text("role_id"), secret_id=value.text("secret_id"))
        )
    else:
        value.wrong(
            "type", f"is {content.type or 'missing'}; authentication to Vault needs one of {', '.join(SECRET_METHODS)}"
        )
    value.check()


def target_ref(target: types_pb2.VaultTarget) -> types_pb2.VaultTargetRef:
    """A target without what authenticates there, as services name it."""
    identity = vault_identity(vault=target.vault, address=target.address, vault_namespace=target.vault_namespace)
    return types_pb2.VaultTargetRef(
        cluster=target.source.cluster,
        namespace=target.source.namespace,
        name=target.source.name,
        digest=target_digest(identity),
        address=target.address,
        vault_namespace=target.vault_namespace,
        vault=target.vault,
    )


def database_target(binding: Body, *, addresses: ServiceAddresses, content: SecretContent | None) -> types_pb2.Database:
    """Read where a database is, and the user whom Vault manages its users with.

    Args:
        binding: The AppBinding.
        addresses: Services that are reached elsewhere.
        content: Its Secret after the transforms; None where it names none.

    Raises:
        SpecInvalidError: Fields of the AppBinding are wrong.
    """
    fields = _spec(binding)
    config = fields.child("clientConfig", required=True)
    data = content.data if content else {}
    found = types_pb2.Database(username=_text(data.get("username", b"")), password=_text(data.get("password", b"")))
    if url := config.text("url"):
        found.url = url
    else:
        found.service.CopyFrom(_service(config, binding, addresses))
    fields.check()
    return found


def database_content(key: Key, content: SecretContent) -> SecretContent:
    """What is read of a Secret for a database: all of one that is made for it, else ``DATABASE_KEYS`` alone.

    Transforms can give any value the name ``password``, which Vault then sends to the database that the AppBinding
    names. So they find no other value in a Secret that is meant for something else.

    Raises:
        SpecInvalidError: The Secret has neither of these keys.
    """
    if content.type in DATABASE_TYPES:
        return content
    found = {name: content.data[name] for name in DATABASE_KEYS if name in content.data}
    if content.data and not found:
        why = (
            f"has neither username nor password, and of a Secret of type {content.type} nothing else is read for a"
            f" database: name one that has both, or of type {DATABASE_TYPES[1]}"
        )
        raise SpecInvalidError.of(FieldViolation(f"Secret {key}", why))
    return SecretContent(content.type, found)


def secret_names(binding: Body) -> list[str]:
    """Names of the Secrets that the AppBinding reads, all in its namespace: its own first, if it has one."""
    fields, namespace = _spec(binding), key_of(binding).namespace
    added = [_from(step, own=namespace) for step in fields.children("secretTransforms") if step.has("addKeysFrom")]
    return list(dict.fromkeys(name for name in (fields.child("secret").text("name"), *added) if name))


def transformed(binding: Body, contents: Mapping[str, SecretContent]) -> SecretContent | None:
    """The AppBinding's Secret after its ``secretTransforms``, in order; None where it names no Secret and adds nothing.

    Raises:
        SpecInvalidError: A transform is wrong.
    """
    fields = _spec(binding)
    own = contents.get(fields.child("secret").text("name"))
    steps = fields.children("secretTransforms")
    if own is None and not steps:
        return None
    data = dict(own.data) if own else {}
    for step in steps:
        _transform(step, data, contents, own=key_of(binding).namespace)
    fields.check()
    return SecretContent(type=own.type if own else "Opaque", data=data)


def _transform(step: Fields, data: dict[str, bytes], contents: Mapping[str, SecretContent], *, own: str) -> None:
    if step.has("renameKey"):
        rename = step.child("renameKey")
        old, new = rename.text("from", required=True), rename.text("to", required=True)
        if old in data and new:
            data[new] = data.pop(old)
    elif step.has("addKey"):
        _add_key(step.child("addKey"), data)
    elif step.has("addKeysFrom"):
        data.update(contents[name].data if (name := _from(step, own=own)) in contents else {})
    elif step.has("removeKey"):
        data.pop(step.child("removeKey").text("key", required=True), None)
    else:
        step.wrong("", "needs one of renameKey, addKey, addKeysFrom, removeKey")


def _add_key(add: Fields, data: dict[str, bytes]) -> None:
    key = add.text("key", required=True)
    if add.has("jsonPathExpression"):
        add.wrong("jsonPathExpression", "is not supported: give value or stringValue")
    data[key] = add.text("stringValue").encode() if add.has("stringValue") else add.base64("value")


def _from(step: Fields, *, own: str) -> str:
    source = step.child("addKeysFrom")
    reference = source.child("secretRef") if source.has("secretRef") else source
    if reference.text("namespace") not in ("", own):
        reference.wrong("namespace", f"must be the AppBinding's own namespace, {own}, or be left out")
    return reference.text("name", required=True)


def secret_content(secret: Body) -> SecretContent:
    """Decode a Secret.

    Raises:
        SpecInvalidError: A value is no base64.
    """
    try:
        data = {name: base64.b64decode(value, validate=True) for name, value in (secret.get("data") or {}).items()}
    except (binascii.Error, ValueError):
        raise SpecInvalidError.of(FieldViolation(f"Secret {key_of(secret)}", "has a value that is no base64")) from None
    return SecretContent(type=str(secret.get("type") or "Opaque"), data=data)


def _spec(binding: Body) -> Fields:
    return Fields(binding.get("spec"), f"AppBinding {key_of(binding)} spec")


def _vault_url(config: Fields) -> str:
    url = config.text("url")
    try:
        parts = urlsplit(url)
    except ValueError:
        config.wrong("url", "is no URL: write it like https://vault.demo.svc:8200")
        return ""
    if not parts.scheme or not parts.netloc:
        config.wrong("url", "needs a scheme and a host: write it like https://vault.demo.svc:8200")
    elif parts.path.strip("/") or parts.query or parts.fragment or "@" in parts.netloc:
        config.wrong("url", "must be scheme, host and port alone: write it like https://vault.demo.svc:8200")
    return f"{parts.scheme.lower()}://{parts.netloc}"


def _service_url(config: Fields, binding: Body, addresses: ServiceAddresses) -> str:
    service = _service(config, binding, addresses)
    scheme = service.scheme.lower() or "https"
    if scheme not in ("http", "https"):
        config.wrong("service.scheme", "must be https (or http) for a Vault")
    if service.path.strip("/") or service.query:
        config.wrong("service.path", "a Vault has neither path nor query: leave them out")
    host = f"[{service.host}]" if ":" in service.host else service.host
    return f"{scheme}://{host}:{service.port}"


def _service(config: Fields, binding: Body, addresses: ServiceAddresses) -> types_pb2.ServiceAddress:
    if not config.has("service"):
        config.wrong("service", "is missing: it, or url, says where the server is")
    service = config.child("service")
    namespace = service.text("namespace") or key_of(binding).namespace
    name, port = service.text("name", required=config.has("service")), service.number("port")
    if config.has("service") and not (port and 0 < port < 65536):
        service.wrong("port", "must be 1 to 65535")
    elsewhere = addresses.get((namespace, name)) or addresses.get(("*", name))
    host, port = elsewhere or (f"{name}.{namespace}.svc", port or 0)
    return types_pb2.ServiceAddress(
        scheme=service.text("scheme"),
        host=host,
        port=port if 0 <= port < 65536 else 0,
        path=service.text("path"),
        query=service.text("query"),
    )


def _text(value: bytes) -> str:
    return value.decode(errors="replace")


class _Values:
    """The values of one Secret, with what is missing."""

    def __init__(self, name: str, content: SecretContent) -> None:
        self._name, self._content, self._wrong = name, content, list[FieldViolation]()

    def raw(self, key: str) -> bytes:
        value = self._content.data.get(key, b"")
        if not value:
            self.wrong(f"data.{key}", f"is missing; a Secret of type {self._content.type} needs it")
        return value

    def text(self, key: str) -> str:
        return _text(self.raw(key))

    def wrong(self, field_name: str, text: str) -> None:
        self._wrong.append(FieldViolation(f"Secret {self._name} {field_name}", text))

    def check(self) -> None:
        if self._wrong:
            raise SpecInvalidError.of(*self._wrong)
