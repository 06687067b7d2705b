"""Builds Vault targets from AppBindings, with a ServiceAccount token or the content of a Secret to authenticate by.

A token is made once a ServiceAccount and kept in memory until shortly before it expires. No part of it is logged.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TypeVar

from leasegate.types.v1 import types_pb2
from services.common.bounded import KeyedLocks
from services.common.errors import SpecInvalidError, VaultAuthRefusedError
from services.common.vault_config.entries import TeamAuth
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
        addresses: Services that are reached elsewhere than at their names.
        allowed: What the operator lets AppBindings authenticate by.
        clock: Monotonic seconds.
    """

    def __init__(
        self,
        api: KubeClient,
        objects: Objects,
        *,
        cluster: Cluster,
        addresses: ServiceAddresses,
        allowed: TeamAuth,
        clock: Callable[[], float],
    ) -> None:
        self._api, self._objects, self._cluster = api, objects, cluster
        self._addresses, self._allowed, self._clock = addresses, allowed, clock
        self._tokens: dict[Key, _Token] = {}  # by ServiceAccount
        self._making = KeyedLocks[Key]()  # a slow namespace blocks no other
        self._lock = threading.Lock()

    def vault(self, key: Key, *, fresh: bool = False) -> types_pb2.VaultTarget:
        """The Vault of an AppBinding, with what authenticates there; ``fresh`` makes a new token.

        Raises:
            PendingError: AppBinding, Secret or ServiceAccount is missing, or the namespace is not enabled.
            SpecInvalidError: The AppBinding or its Secret is wrong.
            KubeError: Kubernetes failed.
        """
        binding = self._binding(key)
        target = appbinding.vault_address(binding, cluster=self._cluster, addresses=self._addresses)
        plan = appbinding.auth_plan(binding, self._allowed)
        if isinstance(plan, ServiceAccountAuth):
            token = self._token(Key(key.namespace, plan.account), fresh=fresh)
            appbinding.set_token_auth(target, plan, token)
        else:
            content = appbinding.transformed(binding, self._contents(binding)) or NOTHING
            appbinding.set_secret_auth(target, plan, content, self._allowed)
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

    def recorded_vault(self, recorded: TargetStatus) -> types_pb2.VaultTarget:
        """The Vault that a status records, for a cleanup there; without what authenticates where that is missing now.

        Raises:
            KubeError: Kubernetes failed.
        """
        try:
            target = self.vault(recorded.app_binding)
            if recorded.is_same_vault(target):
                return target
        except (PendingError, SpecInvalidError):
            pass  # a cleanup never depends on the team's AppBinding: the service has a session, or authenticates itself
        return self._without_auth(recorded)

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

    def _without_auth(self, recorded: TargetStatus) -> types_pb2.VaultTarget:
        target = types_pb2.VaultTarget(
            source=self._cluster.place(recorded.app_binding),
            address=recorded.address,
            vault_namespace=recorded.vault_namespace,
        )
        binding = self._objects.get(APP_BINDING, recorded.app_binding)
        if binding is not None:
            try:
                now = appbinding.vault_address(binding, cluster=self._cluster, addresses=self._addresses)
            except SpecInvalidError:
                now = target
            if recorded.is_same_vault(now):
                target = now
        appbinding.set_auth_mount(target, recorded.auth_mount)
        return target

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

    def _token(self, account: Key, *, fresh: bool) -> str:
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

    def _new_token(self, account: Key) -> _Token:
        spec: Body = {"expirationSeconds": TOKEN_S, "audiences": [self._allowed.token_audience]}
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
