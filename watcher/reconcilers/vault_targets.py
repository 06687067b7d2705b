"""Vault targets with a login: tokens made by the TokenRequest API and kept until shortly before their end, or what a Secret holds.

Tokens are made one per target, never one per request; nothing of them is logged, and they are in memory only.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from leasegate.types.v1 import types_pb2
from services.common.errors import SpecInvalidError
from watcher.kube.client import KubeClient, KubeError
from watcher.kube.objects import Objects
from watcher.kube.resources import SECRET, SERVICE_ACCOUNT, Body, Key, key_of
from watcher.kube.result import PendingError, raise_refused
from watcher.specs import appbinding
from watcher.specs.appbinding import SecretContent, ServiceAccountAuth, ServiceAddresses
from watcher.specs.cluster import Cluster
from watcher.specs.kinds import APP_BINDING

TOKEN_S = 600
"""Lifetime of a token: the least that the API server permits."""
RENEW_AT = 0.6
"""Part of its lifetime after which a token is made anew: what is left is enough to log in with."""

NOTHING = SecretContent(type="", data={})


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
        audience: Audience of tokens where the AppBinding names none; empty for the API server's own.
        clock: Monotonic seconds.
    """

    def __init__(
        self,
        api: KubeClient,
        objects: Objects,
        *,
        cluster: Cluster,
        addresses: ServiceAddresses,
        audience: str,
        clock: Callable[[], float],
    ) -> None:
        self._api, self._objects, self._cluster = api, objects, cluster
        self._addresses, self._audience, self._clock = addresses, audience, clock
        self._tokens: dict[tuple[str, str, str], _Token] = {}
        self._turns: dict[
            tuple[str, str, str], threading.Lock
        ] = {}  # one at a time makes a token, but not one for all namespaces
        self._lock = threading.Lock()

    def vault(self, key: Key, *, fresh: bool = False) -> types_pb2.VaultTarget:
        """The Vault of an AppBinding with a login; ``fresh`` makes a new token.

        Raises:
            Waiting: AppBinding, Secret or ServiceAccount is not there, or the namespace is not served.
            SpecInvalidError: The AppBinding or its Secret is wrong.
            KubeError: Kubernetes failed.
        """
        binding = self._binding(key)
        target = appbinding.vault_address(binding, cluster=self._cluster, addresses=self._addresses)
        plan = appbinding.auth_plan(binding)
        if isinstance(plan, ServiceAccountAuth):
            appbinding.set_token_auth(target, plan, self._token(key.namespace, plan, fresh=fresh))
        else:
            appbinding.set_secret_auth(
                target, plan, appbinding.transformed(binding, self._contents(binding)) or NOTHING
            )
        return target

    def known_vault(self, status: Body) -> types_pb2.VaultTarget:
        """The Vault that a status names, for the end of what is there: with a login if there still is one, and without
        if not.

        Raises:
            KubeError: Kubernetes failed.
        """
        key = Key(str(status.get("namespace", "")), str(status.get("name", "")))
        try:
            target = self.vault(key)
            if same_vault(target, status):
                return target
        except (PendingError, SpecInvalidError):
            pass  # ending never depends on the team's login: the service has one in memory, or its own
        return self._without_login(key, status)

    def database(self, key: Key) -> types_pb2.Database:
        """The database of an AppBinding.

        Raises:
            Waiting: AppBinding or Secret is not there, or its namespace is not served.
            SpecInvalidError: The AppBinding is wrong.
            KubeError: Kubernetes failed.
        """
        binding = self._binding(key)
        content = appbinding.transformed(binding, self._contents(binding))
        return appbinding.database_target(binding, addresses=self._addresses, content=content)

    def forget(self, key: Key) -> None:
        """Drop the tokens of an AppBinding's ServiceAccounts, as Vault refused one: a new one is made next time."""
        with self._lock:
            self._tokens = {
                secret_attempt: token
                for secret_attempt, token in self._tokens.items()
                if secret_attempt[0] != key.namespace
            }

    def _without_login(self, key: Key, status: Body) -> types_pb2.VaultTarget:
        target = types_pb2.VaultTarget(
            source=self._cluster.place(key),
            address=str(status.get("address", "")),
            vault_namespace=str(status.get("vaultNamespace", "")),
        )
        binding = self._objects.get(APP_BINDING, key)
        if binding is not None:
            try:
                now = appbinding.vault_address(binding, cluster=self._cluster, addresses=self._addresses)
            except SpecInvalidError:
                now = target
            if same_vault(now, status):
                target = now
        appbinding.set_auth_mount(target, str(status.get("authMount", "")))
        return target

    def _binding(self, key: Key) -> Body:
        binding = self._objects.get(APP_BINDING, key)
        if binding is None:
            raise PendingError(f"AppBinding {key} is not there: apply it", reason="AppBindingNotFound")
        return binding

    def _contents(self, binding: Body) -> Mapping[str, SecretContent]:
        namespace = key_of(binding).namespace
        return {name: self._content(Key(namespace, name)) for name in appbinding.secret_names(binding)}

    def _content(self, key: Key) -> SecretContent:
        try:
            return appbinding.secret_content(self._api.get(SECRET, namespace=key.namespace, name=key.name))
        except KubeError as err:
            if err.status == 404:
                raise PendingError(f"Secret {key} is not there: apply it", reason="SecretNotFound") from err
            raise_refused(err, key.namespace)

    def _token(self, namespace: str, plan: ServiceAccountAuth, *, fresh: bool) -> str:
        secret_attempt = (namespace, plan.account, plan.audience or self._audience)
        with self._lock:
            turn = self._turns.setdefault(secret_attempt, threading.Lock())
        with turn:
            with self._lock:
                token = self._tokens.get(secret_attempt)
            if token is None or fresh or self._clock() >= token.until:
                token = self._new_token(*secret_attempt)
                with self._lock:
                    self._tokens[secret_attempt] = token
        return token.jwt

    def _new_token(self, namespace: str, account: str, audience: str) -> _Token:
        spec: Body = {"expirationSeconds": TOKEN_S, **({"audiences": [audience]} if audience else {})}
        body = {"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "spec": spec}
        asked = self._clock()
        try:
            answer = self._api.create(SERVICE_ACCOUNT, body, namespace=namespace, name=account, subresource="token")
        except KubeError as err:
            if err.status == 404:
                text = f"ServiceAccount {namespace}/{account} is not there: apply it"
                raise PendingError(text, reason="ServiceAccountNotFound") from err
            raise_refused(err, namespace)
        lifetime_s = float((answer.get("spec") or {}).get("expirationSeconds") or TOKEN_S)
        return _Token(jwt=str(answer["status"]["token"]), until=asked + lifetime_s * RENEW_AT)


def same_vault(target: types_pb2.VaultTarget, status: Body) -> bool:
    """Whether a target is the Vault that a status names."""
    address, namespace = str(status.get("address", "")), str(status.get("vaultNamespace", ""))
    return target.address.lower() == address.lower() and target.vault_namespace == namespace


def status_target(target: types_pb2.VaultTarget, *, digest: str = "") -> Body:
    """What a status keeps of a target: no secret."""
    found = {
        "cluster": target.source.cluster,
        "namespace": target.source.namespace,
        "name": target.source.name,
        "digest": digest,
        "address": target.address,
        "vaultNamespace": target.vault_namespace,
        "authMount": appbinding.auth_mount(target),
    }
    return {name: value for name, value in found.items() if value}
