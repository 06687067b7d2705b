"""Builds Vault targets from AppBindings, with a ServiceAccount token or the content of a Secret to authenticate by.

A token is made once a ServiceAccount and kept in memory until shortly before it expires. No part of it is logged.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import NamedTuple, TypeVar

from leasegate.types.v1 import types_pb2
from services.common.bounded import KeyedLocks
from services.common.errors import SpecInvalidError, VaultAuthRefusedError, VaultNotAllowedError
from services.common.vault_config.entries import TeamAuth, VaultConfig, VaultEntry
from watcher.kube.client import KubeClient, KubeError
from watcher.kube.objects import Objects
from watcher.kube.resources import SECRET, SERVICE_ACCOUNT, Body, Key, key_of
from watcher.kube.result import PendingError, raise_refused
from watcher.specs import appbinding, consent
from watcher.specs.appbinding import SecretContent, ServiceAccountAuth, ServiceAddresses
from watcher.specs.cluster import Cluster
from watcher.specs.kinds import APP_BINDING
from watcher.specs.status import TargetStatus

TOKEN_S = 600
"""Lifetime of a token: the least that the API server permits."""
RENEW_AT = 0.6
"""Part of its lifetime after which a token is replaced: what is left is enough to authenticate with."""

TOKENS_OF_NAMESPACE = 16
"""Kept in memory at most; a team chooses the names of ServiceAccounts."""

NOTHING = SecretContent(type="", data={})
Answer = TypeVar("Answer")


class _Account(NamedTuple):
    """A ServiceAccount, and the audience of its tokens."""

    namespace: str
    name: str
    audience: str

    def __str__(self) -> str:
        return f"{self.namespace}/{self.name}"


@dataclass(frozen=True, slots=True)
class _Token:
    jwt: str = field(repr=False)
    until: float


class VaultTargets:
    """Builds targets from AppBindings. Safe for threads.

    Args:
        api: Kubernetes.
        objects: The AppBindings.
        cluster: Where they are.
        vaults: The Vaults that the operator names.
        addresses: Services that are reached elsewhere than at their names.
        allowed: What AppBindings may authenticate by where every Vault is allowed.
        clock: Monotonic seconds.
    """

    def __init__(
        self,
        api: KubeClient,
        objects: Objects,
        *,
        cluster: Cluster,
        vaults: VaultConfig,
        addresses: ServiceAddresses,
        allowed: TeamAuth,
        clock: Callable[[], float],
    ) -> None:
        self._api, self._objects, self._cluster, self._vaults = api, objects, cluster, vaults
        self._addresses, self._allowed, self._clock = addresses, allowed, clock
        self._tokens: dict[_Account, _Token] = {}
        self._making = KeyedLocks[_Account]()  # a slow namespace blocks no other
        self._lock = threading.Lock()

    def vault(self, key: Key, *, fresh: bool = False) -> types_pb2.VaultTarget:
        """The Vault of an AppBinding, with what authenticates there; ``fresh`` makes a new token.

        Raises:
            PendingError: AppBinding, Secret or ServiceAccount is missing, or the namespace is not enabled.
            VaultNotAllowedError: The operator names no such Vault; nothing was made or read for it.
            SpecInvalidError: The AppBinding or its Secret is wrong.
            KubeError: Kubernetes failed.
        """
        binding = self._binding(key)
        target = self._place(binding)
        allowed = self._allowed_at(target)
        plan = appbinding.auth_plan(binding, allowed)
        if isinstance(plan, ServiceAccountAuth):
            account = _Account(key.namespace, plan.account, allowed.token_audience)
            token = self._token(account, fresh=fresh)
            appbinding.set_token_auth(target, plan, token)
        else:
            content = appbinding.transformed(binding, self._contents(binding)) or NOTHING
            appbinding.set_secret_auth(target, plan, content, allowed)
        return target

    def call(self, key: Key, target: types_pb2.VaultTarget, send: Callable[[types_pb2.VaultTarget], Answer]) -> Answer:
        """Send a Vault's target; where Vault refuses a ServiceAccount's token, send it at once again with a new one.

        A token that is kept in memory is refused if its ServiceAccount was deleted and made again.

        Args:
            key: The AppBinding.
            target: As ``vault`` answered it.
            send: Sends it to a service.

        Raises:
            VaultAuthRefusedError: Vault refused the new token, too.
            LeasegateError: The service failed.
        """
        try:
            return send(target)
        except VaultAuthRefusedError:
            if not target.kubernetes.jwt:
                raise
        return send(self.vault(key, fresh=True))

    def check_use(self, key: Key, *, namespace: str, mount: str) -> None:
        """Refuse a Vault that is not allowed to a namespace, or a mount of it, before anything is made or read for it.

        Args:
            key: AppBinding of the Vault.
            namespace: The namespace of the object that uses it.
            mount: Path of the mount; empty for none.

        Raises:
            PendingError: The AppBinding is missing.
            VaultNotAllowedError: The operator names no such Vault.
            PathNotOwnedError: The operator does not give the mount to the namespace.
            SpecInvalidError: The AppBinding is wrong.
        """
        self.check_own(key, namespace=namespace)
        target = self._place(self._binding(key))
        if mount and (entry := self._vaults.named(target.vault)):
            entry.check_mount(mount, namespace=namespace)

    def check_own(self, key: Key, *, namespace: str) -> None:
        """Refuse an AppBinding of another namespace where every Vault is allowed: its Secret would go anywhere.

        Raises:
            VaultNotAllowedError: It is of another namespace.
        """
        if self._vaults.any_vault and key.namespace != namespace:
            raise VaultNotAllowedError(
                f"AppBinding {key} is of another namespace, and Leasegate runs with --allow-any-vault, which uses those"
                f" of {namespace} alone: have the operator name the Vaults in --vault-config"
            )

    def notices(self, key: Key) -> list[types_pb2.Notice]:
        """What the owner of an object should know of the Vault of an AppBinding."""
        if self._vaults.any_vault:
            text = (
                "Leasegate runs with --allow-any-vault: the AppBinding's session issues credentials, so that whoever"
                " has it needs no approval. Have the operator name the Vaults in --vault-config"
            )
            return [types_pb2.Notice(reason="ApprovalNotEnforced", message=text)]
        described = self._described(self._binding(key))
        entry = self._entry(described)
        if fields := appbinding.settings_not_used(described, ca=_read_ca(entry)):
            text = (
                f"{', '.join(fields)} of AppBinding {key} has no effect: connections go to {entry.address} with the"
                f" certificates that the operator gives Vault {entry.name}. Remove it from spec.clientConfig"
            )
            return [types_pb2.Notice(reason="VaultSettingsNotUsed", message=text)]
        return []

    def is_same_vault(self, recorded: TargetStatus, target: types_pb2.VaultTarget) -> bool:
        """Whether a status records the Vault of a target, under any name or address that the operator gives it."""
        if recorded.is_same_vault(target):
            return True
        if self._vaults.any_vault:
            return replace(recorded, vault="").is_same_vault(target)
        try:
            return self._recorded_entry(recorded).identity == target.vault
        except VaultNotAllowedError:
            return False

    def known_place(self, recorded: TargetStatus) -> TargetStatus:
        """The Vault that a status records, by the name that it has now.

        Raises:
            PendingError: The operator names no such Vault any more. Nothing may be moved or removed until that is
                cleared up.
        """
        if self._vaults.any_vault:
            return replace(recorded, vault="")
        if entry := self._vaults.named(recorded.vault):
            return replace(recorded, vault=entry.identity)
        if not recorded.vault:
            try:
                return replace(recorded, vault=self._recorded_entry(recorded).identity)
            except VaultNotAllowedError as err:
                raise PendingError(err.message, reason="VaultNotAllowed") from err
        raise PendingError(
            f"This object is in Vault {recorded.vault}, which no entry of --vault-config names any more: have the"
            f" operator put the entry back, or add {recorded.vault} to formerNames of the entry that it is now",
            reason="VaultNotAllowed",
        )

    def recorded_vault(self, recorded: TargetStatus) -> types_pb2.VaultTarget:
        """The Vault that a status records, for a cleanup there; without what authenticates where that is missing now.

        Raises:
            VaultNotAllowedError: The operator names no such Vault any more, neither by its name nor by its last known
                address, so that nothing may be sent there.
            KubeError: Kubernetes failed.
        """
        place = self._recorded_place(recorded)
        try:
            target = self.vault(recorded.app_binding)
        except (PendingError, SpecInvalidError, VaultNotAllowedError):
            return place  # a cleanup never depends on the team's AppBinding: the service authenticates itself
        return target if TargetStatus.of(place).is_same_vault(target) else place

    def database_allow_from(self, key: Key, *, user: str) -> tuple[str, ...]:
        """The other namespaces that may use the database of an AppBinding, after checking that ``user`` may.

        Nothing else is read, so that this goes before a token is made. An AppBinding of the namespace ``user`` itself
        need not exist.

        Raises:
            PendingError: The AppBinding is another namespace's, whose owner does not allow the namespace ``user``.
        """
        binding = self._objects.get(APP_BINDING, key)
        consent.check_database(binding, key, user=user)
        return consent.allow_from(binding) if binding else ()

    def database(self, key: Key, *, user: str) -> types_pb2.Database:
        """The database of an AppBinding, for an object in the namespace ``user``.

        Raises:
            PendingError: AppBinding or Secret is missing, its owner does not allow the namespace, or its namespace is
                not enabled.
            SpecInvalidError: The AppBinding is wrong.
            KubeError: Kubernetes failed.
        """
        consent.check_database(self._objects.get(APP_BINDING, key), key, user=user)
        binding = self._binding(key)
        contents = self._contents(binding)
        readable = {
            name: appbinding.database_content(Key(key.namespace, name), each) for name, each in contents.items()
        }
        content = appbinding.transformed(binding, readable)
        return appbinding.database_target(binding, addresses=self._addresses, content=content)

    def _allowed_at(self, target: types_pb2.VaultTarget) -> TeamAuth:
        """What the operator lets AppBindings authenticate by at a Vault."""
        entry = self._vaults.named(target.vault)
        return entry.team_auth if entry else self._allowed

    def _described(self, binding: Body) -> types_pb2.VaultTarget:
        # Nothing connects to the address of an AppBinding where entries are named: it only chooses one.
        addresses = self._addresses if self._vaults.any_vault else {}
        return appbinding.vault_address(binding, cluster=self._cluster, addresses=addresses)

    def _place(self, binding: Body) -> types_pb2.VaultTarget:
        """The Vault of an AppBinding, without what authenticates there."""
        described = self._described(binding)
        if self._vaults.any_vault:
            described.vault = ""
            return described
        return appbinding.as_in_entry(described, self._entry(described))

    def _entry(self, described: types_pb2.VaultTarget) -> VaultEntry:
        return self._vaults.choose(described.address, name=described.vault, vault_namespace=described.vault_namespace)

    def _recorded_entry(self, recorded: TargetStatus) -> VaultEntry:
        return self._vaults.recorded(
            vault=recorded.vault, address=recorded.address, vault_namespace=recorded.vault_namespace
        )

    def _recorded_place(self, recorded: TargetStatus) -> types_pb2.VaultTarget:
        described = types_pb2.VaultTarget(
            source=self._cluster.place(recorded.app_binding),
            address=recorded.address,
            vault_namespace=recorded.vault_namespace,
        )
        if not self._vaults.any_vault:
            return appbinding.as_in_entry(described, self._recorded_entry(recorded))
        binding = self._objects.get(APP_BINDING, recorded.app_binding)
        try:
            now = self._place(binding) if binding is not None else described
        except SpecInvalidError:
            return described
        return now if TargetStatus.of(described).is_same_vault(now) else described

    def _binding(self, key: Key) -> Body:
        binding = self._objects.get(APP_BINDING, key)
        if binding is None:
            raise PendingError(f"AppBinding {key} does not exist: apply it", reason="AppBindingNotFound")
        return binding

    def _contents(self, binding: Body) -> Mapping[str, SecretContent]:
        namespace = key_of(binding).namespace
        return {name: self._content(Key(namespace, name)) for name in appbinding.secret_names(binding)}

    def _content(self, key: Key) -> SecretContent:
        try:
            return appbinding.secret_content(self._api.get(SECRET, namespace=key.namespace, name=key.name))
        except KubeError as err:
            if err.status == 404:
                raise PendingError(f"Secret {key} does not exist: apply it", reason="SecretNotFound") from err
            raise_refused(err, key.namespace)

    def _token(self, account: _Account, *, fresh: bool) -> str:
        with self._making.holding(account):
            with self._lock:
                token = self._tokens.get(account)
            if token is None or fresh or self._clock() >= token.until:
                token = self._new_token(account)
                with self._lock:
                    self._tokens[account] = token
                    self._drop_tokens(account.namespace)
        return token.jwt

    def _drop_tokens(self, namespace: str) -> None:
        """Drop expired tokens, and the oldest of a namespace that names more ServiceAccounts than it needs."""
        now = self._clock()
        for account in [account for account, token in self._tokens.items() if now >= token.until]:
            del self._tokens[account]
        of_namespace = [account for account in self._tokens if account.namespace == namespace]
        for account in of_namespace[:-TOKENS_OF_NAMESPACE]:
            del self._tokens[account]

    def _new_token(self, account: _Account) -> _Token:
        spec: Body = {"expirationSeconds": TOKEN_S, "audiences": [account.audience]}
        body = {"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "spec": spec}
        asked = self._clock()
        try:
            answer = self._api.create(
                SERVICE_ACCOUNT, body, namespace=account.namespace, name=account.name, subresource="token"
            )
        except KubeError as err:
            if err.status == 404:
                text = f"ServiceAccount {account} does not exist: apply it"
                raise PendingError(text, reason="ServiceAccountNotFound") from err
            if err.status == 422 or err.is_policy_refusal:
                text = f"Kubernetes refused a token for ServiceAccount {account}: {err.message}"
                raise PendingError(text, reason="TokenRefused") from err
            raise_refused(err, account.namespace)
        lifetime_s = float((answer.get("spec") or {}).get("expirationSeconds") or TOKEN_S)
        return _Token(jwt=str(answer["status"]["token"]), until=asked + lifetime_s * RENEW_AT)


def _read_ca(entry: VaultEntry) -> bytes | None:
    """The certificates that an entry trusts; None where the watcher cannot read them, as it never calls a Vault."""
    try:
        return entry.ca_file.read_bytes() if entry.ca_file else b""
    except OSError:
        return None
