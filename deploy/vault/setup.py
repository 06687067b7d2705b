"""Brings a Vault to what Leasegate needs of it, thing by thing, and says of each whether it had to be changed.

Every step reads first and writes only what differs, so it can be run again at any time, and a dry run says the same
without writing.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from enum import Enum
from typing import Any

from deploy.vault.api import Answer, VaultApi, VaultError
from deploy.vault.policies import ACCESS, ENGINE, ISSUER, ROLES, Mounts, render_all

TOKEN_ROLE = "leasegate"  # noqa: S105 - a name
TEAM_ROLE = "vault-policy-controller"
# Attempts' tokens outlive the session that made them, cannot be renewed, and only read a credential (docs/safety.md).
_TOKEN_ROLE_SETTINGS: dict[str, Any] = {
    "allowed_policies": [ISSUER],
    "orphan": True,
    "renewable": False,
    "token_no_default_policy": True,
    "token_type": "service",
}


class Outcome(Enum):
    """What a step found or did."""

    UNCHANGED = "unchanged"
    CHANGED = "changed"
    WOULD_CHANGE = "would change"


@dataclass(frozen=True, slots=True)
class Step:
    """One thing in Vault, by its API path, and what became of it."""

    path: str
    outcome: Outcome


@dataclass(frozen=True, slots=True)
class KubernetesAuth:
    """How Vault checks the tokens of ServiceAccounts, and whose it takes.

    Attributes:
        host: The API server's address as Vault reaches it.
        ca: PEM of the API server's authority; None where Vault runs in that cluster and uses its own copy.
        reviewer_jwt: A token that may create TokenReviews; None to let each token review itself, which each
            ServiceAccount then needs ``system:auth-delegator`` for. One that was set before is taken away only with the
            configuration.
        mount: Path of the auth method.
        team_namespaces: Namespaces whose ServiceAccount ``team_account`` may log in as a team.
        team_account: Name of that ServiceAccount.
        team_ttl_s: Seconds for which a team's session lives.
        team_policies: Policies of a team's session.
        service_namespace: Namespace of the services' own ServiceAccounts (leasegate-engine, leasegate-roles,
            leasegate-access).
        service_ttl_s: Seconds for which a service's session lives before it must be renewed.
        service_max_ttl_s: Seconds after which a service logs in again.
        audience: Audience that a token must be made for; None to take any that the API server takes.
    """

    host: str
    ca: str | None = None
    reviewer_jwt: str | None = field(default=None, repr=False)
    mount: str = "kubernetes"
    team_namespaces: tuple[str, ...] = ("*",)
    team_account: str = "vault"
    team_ttl_s: int = 1200
    team_policies: tuple[str, ...] = (ENGINE, ROLES)
    service_namespace: str = "leasegate-system"
    service_ttl_s: int = 3600
    service_max_ttl_s: int = 86400
    audience: str | None = None


class Setup:
    """One run against one Vault."""

    def __init__(self, vault: VaultApi, *, dry_run: bool = False) -> None:
        """Run with the token of ``vault``; write nothing if ``dry_run``."""
        self._vault, self._dry_run = vault, dry_run

    def policies(self, mounts: Mounts) -> Iterator[Step]:
        """The four policies and the token role that hands out one of them.

        Raises:
            VaultError: Vault refused a step; the steps before it are done.
        """
        for name, text in render_all(mounts).items():
            yield self._policy(name, text)
        yield self._settings(f"auth/token/roles/{TOKEN_ROLE}", _TOKEN_ROLE_SETTINGS)

    def kubernetes(self, auth: KubernetesAuth) -> Iterator[Step]:
        """The Kubernetes auth method, its configuration, the teams' role and the services' roles.

        Raises:
            VaultError: Vault refused a step; the steps before it are done.
        """
        yield self._auth_method(auth.mount)
        yield self._auth_config(auth)
        yield self._settings(f"auth/{auth.mount}/role/{TEAM_ROLE}", _team_role(auth))
        for policy in (ENGINE, ROLES, ACCESS):
            yield self._settings(f"auth/{auth.mount}/role/{policy}", _service_role(policy, auth))

    def _policy(self, name: str, text: str) -> Step:
        path = f"sys/policies/acl/{name}"
        found = self._read(path)
        same = str(found.get("policy", "")).strip() == text.strip()
        return self._write(path, {"policy": text}, needed=not same)

    def _auth_method(self, mount: str) -> Step:
        path = f"sys/auth/{mount}"
        methods = self._must("GET", "sys/auth").body
        found = (methods.get("data") or methods).get(f"{mount}/")
        if found and found.get("type") != "kubernetes":
            raise VaultError(f"{path} is of type {found.get('type')}, not kubernetes: name another path")
        return self._write(path, {"type": "kubernetes"}, needed=not found)

    def _auth_config(self, auth: KubernetesAuth) -> Step:
        settings = {
            "kubernetes_host": auth.host,
            "kubernetes_ca_cert": auth.ca or "",
            "disable_local_ca_jwt": auth.ca is not None,
        }
        path = f"auth/{auth.mount}/config"
        found = self._read(path)
        if auth.reviewer_jwt is None:
            return self._write(
                path, settings, needed=not _covers(found, settings) or bool(found.get("token_reviewer_jwt_set"))
            )
        # A token cannot be read back to be compared, so it is written each time.
        return self._write(path, settings | {"token_reviewer_jwt": auth.reviewer_jwt}, needed=True)

    def _settings(self, path: str, settings: Mapping[str, Any]) -> Step:
        return self._write(path, settings, needed=not _covers(self._read(path), settings))

    def _read(self, path: str) -> dict[str, Any]:
        answer = self._vault.call("GET", path)
        if answer.status == 404 or (self._dry_run and answer.status == 400):  # 400: the auth method is not there yet
            return {}
        return _checked(answer, path).body.get("data") or {}

    def _write(self, path: str, body: Mapping[str, Any], *, needed: bool) -> Step:
        if not needed:
            return Step(path, Outcome.UNCHANGED)
        if self._dry_run:
            return Step(path, Outcome.WOULD_CHANGE)
        self._must("POST", path, body)
        return Step(path, Outcome.CHANGED)

    def _must(self, method: str, path: str, body: Mapping[str, Any] | None = None) -> Answer:
        return _checked(self._vault.call(method, path, body), path)


def _checked(answer: Answer, path: str) -> Answer:
    if not answer.ok:
        raise VaultError(f"{path}: Vault answered {answer.status} {answer.errors}")
    return answer


def _covers(found: Mapping[str, Any], wanted: Mapping[str, Any]) -> bool:
    """Whether Vault has what is wanted, in any order of lists, with or without the final newline of a PEM."""
    return all(_plain(found.get(key)) == _plain(value) for key, value in wanted.items())


def _plain(value: Any) -> Any:
    if isinstance(value, str):
        return value.strip()
    return sorted(value) if isinstance(value, (list, tuple)) else value


def _team_role(auth: KubernetesAuth) -> dict[str, Any]:
    return _role(auth, auth.team_account, auth.team_namespaces, policies=auth.team_policies) | {
        "token_ttl": auth.team_ttl_s,
        "token_max_ttl": auth.team_ttl_s,
    }


def _service_role(policy: str, auth: KubernetesAuth) -> dict[str, Any]:
    ttls = {"token_ttl": auth.service_ttl_s, "token_max_ttl": auth.service_max_ttl_s}
    return _role(auth, policy, (auth.service_namespace,), policies=(policy,)) | ttls


def _role(
    auth: KubernetesAuth, account: str, namespaces: tuple[str, ...], *, policies: tuple[str, ...]
) -> dict[str, Any]:
    role: dict[str, Any] = {
        "bound_service_account_names": [account],
        "bound_service_account_namespaces": list(namespaces),
        "token_policies": list(policies),
        "token_no_default_policy": True,
    }
    return role | ({"audience": auth.audience} if auth.audience else {})
