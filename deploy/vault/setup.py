"""Brings a Vault to what Leasegate needs of it, thing by thing, and says of each whether it had to be changed.

Every step reads first and writes only what differs, so it can be run again at any time, and a dry run says the same
without writing.
"""

from __future__ import annotations

import base64
import binascii
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from enum import Enum
from typing import Any

from deploy.vault.api import Answer, VaultApi, VaultError
from deploy.vault.policies import ACCESS, ENGINE, ISSUER, ROLES, Mounts, render_all

TOKEN_ROLE = "leasegate"  # noqa: S105 - a name
TEAM_ROLE = "vault-policy-controller"
TEAM_TTL_S = 60
AUDIENCE = "leasegate-vault"
CORRELATION_HEADER = "X-Correlation-ID"
_API_SERVER_AUDIENCES = frozenset(
    scheme + host + path
    for scheme in ("https://", "")
    for host in ("kubernetes.default.svc", "kubernetes.default.svc.cluster.local", "kubernetes.default", "kubernetes")
    for path in ("", "/")
) | {"api"}
"""What API servers are commonly configured with (--api-audiences, else --service-account-issuer)."""
_TEAM_SESSION_S = 1200
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
    SKIPPED = "skipped"


@dataclass(frozen=True, slots=True)
class Step:
    """One thing in Vault, by its API path, and what became of it; the note says what an operator has to know of it."""

    path: str
    outcome: Outcome
    note: str = ""


class AudienceError(ValueError):
    """The audience is missing, or is one of the API server's own."""


def check_audience(audience: str, *, host: str | None = None, reviewer_jwt: str | None = None) -> None:
    """Refuse an audience that does not keep tokens for Vault and tokens for others apart.

    Args:
        audience: The audience.
        host: The API server's address.
        reviewer_jwt: A token that the API server takes, and whose audiences are therefore its own.

    Raises:
        AudienceError: There is none, or it is one of the API server's own, as far as that can be known here.
    """
    if not audience.strip():
        raise AudienceError(
            "an audience is needed: without one Vault's auth roles take a ServiceAccount's token that was made for"
            f" any other system. Use {AUDIENCE}"
        )
    if audience in _API_SERVER_AUDIENCES | {host} | _audiences_of(reviewer_jwt):
        raise AudienceError(
            f"{audience} is an audience of the API server: a token for Vault would be a token for Kubernetes as well."
            f" Use another one, such as {AUDIENCE}"
        )


@dataclass(frozen=True, slots=True)
class KubernetesAuth:
    """How Vault checks the tokens of ServiceAccounts, and whose it takes.

    Attributes:
        host: The API server's address as Vault reaches it.
        ca: PEM of the API server's authority; None where Vault runs in that cluster and uses its own copy.
        reviewer_jwt: A token that may create TokenReviews; None to let each token review itself, which each
            ServiceAccount then needs ``system:auth-delegator`` for. One that was set before is taken away only with the
            configuration; Vault 1.14 does not tell that it has one, and keeps it until something else changes.
        mount: Path of the auth method.
        team_namespaces: Namespaces whose ServiceAccounts ``team_accounts`` may log in as a team.
        team_accounts: Names of those ServiceAccounts.
        team_acts: Whether a team's session has the policies of all services, for a set-up in which they run with
            ``--allow-any-vault``; else it has none, and proves only that the team may use this Vault.
        service_namespace: Namespace of the services' own ServiceAccounts (leasegate-engine, leasegate-roles,
            leasegate-access).
        service_roles: By policy, the name of the service's auth role where it is not the policy's.
        service_ttl_s: Seconds for which a service's session lives before it must be renewed.
        service_max_ttl_s: Seconds after which a service logs in again.
        audience: Audience that a token must be made for. Without one an auth role takes tokens of any audience.
    """

    host: str
    ca: str | None = None
    reviewer_jwt: str | None = field(default=None, repr=False)
    mount: str = "kubernetes"
    team_namespaces: tuple[str, ...] = ("*",)
    team_accounts: tuple[str, ...] = ("vault",)
    team_acts: bool = False
    service_namespace: str = "leasegate-system"
    service_roles: Mapping[str, str] = field(default_factory=dict)
    service_ttl_s: int = 3600
    service_max_ttl_s: int = 86400
    audience: str = AUDIENCE

    def __post_init__(self) -> None:
        check_audience(self.audience, host=self.host, reviewer_jwt=self.reviewer_jwt)


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
        yield self._audit_header()

    def kubernetes(self, auth: KubernetesAuth) -> Iterator[Step]:
        """The Kubernetes auth method, its configuration, the teams' role and the services' roles.

        Raises:
            VaultError: Vault refused a step; the steps before it are done.
        """
        yield self._auth_method(auth.mount)
        yield self._auth_config(auth)
        yield from self._team_role(auth)
        for policy in (ENGINE, ROLES, ACCESS):
            name = auth.service_roles.get(policy, policy)
            yield self._settings(f"auth/{auth.mount}/role/{name}", _service_role(policy, auth))

    def _team_role(self, auth: KubernetesAuth) -> Iterator[Step]:
        """The teams' role; where it had policies before, the sessions that still have them are revoked if permitted."""
        path = f"auth/{auth.mount}/role/{TEAM_ROLE}"
        before = self._read(path)
        yield self._settings(path, _team_role(auth))
        had = set(before.get("token_policies") or ()) - set(_team_role(auth)["token_policies"])
        if had:
            yield self._revoke_sessions(auth, role=before, had=sorted(had))

    def _revoke_sessions(self, auth: KubernetesAuth, *, role: Mapping[str, Any], had: list[str]) -> Step:
        path, what = f"auth/{auth.mount}/login", f"sessions of {TEAM_ROLE} with {', '.join(had)}"
        if self._dry_run:
            return Step(path, Outcome.WOULD_CHANGE, f"{what} would be revoked")
        try:
            found = self._must("LIST", "auth/token/accessors").body["data"]["keys"]
            ended = [accessor for accessor in found if self._revoke_session(path, accessor)]
        except VaultError as err:
            life_s = role.get("token_max_ttl") or role.get("token_ttl") or "Vault's own limit in"
            note = f"{what} that were made before live for up to {life_s} seconds: they could not be revoked ({err})"
            return Step(path, Outcome.SKIPPED, note)
        return Step(path, Outcome.CHANGED if ended else Outcome.UNCHANGED, f"{what} revoked: {len(ended)}")

    def _revoke_session(self, path: str, accessor: str) -> bool:
        """Revoke a token if it is a session of a team."""
        answer = self._vault.call("POST", "auth/token/lookup-accessor", {"accessor": accessor})
        if "invalid accessor" in answer.errors:  # 400: it ended meanwhile
            return False
        data = _checked(answer, "auth/token/lookup-accessor").body["data"]
        if data.get("path") != path or (data.get("meta") or {}).get("role") != TEAM_ROLE:
            return False
        self._must("POST", "auth/token/revoke-accessor", {"accessor": accessor})
        return True

    def _audit_header(self) -> Step:
        """Have Vault's audit log show the id by which Leasegate's own log names each write.

        A Vault namespace has no such setting, and a token may lack the right to it: then the audit log has Vault's own
        request ids alone.
        """
        path = f"sys/config/auditing/request-headers/{CORRELATION_HEADER}"
        answer = self._vault.call("GET", "sys/config/auditing/request-headers")
        headers = (answer.body.get("data") or {}).get("headers") or {}
        if answer.ok and headers.get(CORRELATION_HEADER.lower()) == {"hmac": False}:
            return Step(path, Outcome.UNCHANGED)
        if answer.ok and self._dry_run:
            return Step(path, Outcome.WOULD_CHANGE)
        written = self._vault.call("POST", path, {"hmac": False}) if answer.ok else answer
        if written.ok:
            return Step(path, Outcome.CHANGED)
        note = f"Vault's audit log will not show {CORRELATION_HEADER}: {written.status} {written.errors}"
        return Step(path, Outcome.SKIPPED, note)

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
    if value is None:
        return []
    return sorted(value) if isinstance(value, (list, tuple)) else value


def _audiences_of(jwt: str | None) -> frozenset[str]:
    """The audiences of the reviewer's token, which the API server takes as its own, and its issuer."""
    try:
        payload = (jwt or "").split(".")[1]
        claims = json.loads(base64.urlsafe_b64decode(payload + "=" * (-len(payload) % 4)))
        found = claims.get("aud", [])
        return frozenset([found] if isinstance(found, str) else found) | {str(claims.get("iss", ""))}
    except (IndexError, binascii.Error, ValueError, AttributeError, TypeError):
        return frozenset()


def _team_role(auth: KubernetesAuth) -> dict[str, Any]:
    """A session that proves who logs in and permits nothing; it is stored nowhere and cannot be renewed.

    Where teams act, it is a session with all policies.
    """
    policies = (ENGINE, ROLES, ACCESS) if auth.team_acts else ()
    life_s = _TEAM_SESSION_S if auth.team_acts else TEAM_TTL_S
    return _role(auth, auth.team_accounts, auth.team_namespaces, policies=policies) | {
        "token_type": "service" if auth.team_acts else "batch",
        "token_ttl": life_s,
        "token_max_ttl": life_s,
        "token_period": 0,
        "token_num_uses": 0,
        "token_explicit_max_ttl": 0,
    }


def _service_role(policy: str, auth: KubernetesAuth) -> dict[str, Any]:
    ttls = {"token_ttl": auth.service_ttl_s, "token_max_ttl": auth.service_max_ttl_s}
    return _role(auth, (policy,), (auth.service_namespace,), policies=(policy,)) | ttls


def _role(
    auth: KubernetesAuth, accounts: tuple[str, ...], namespaces: tuple[str, ...], *, policies: tuple[str, ...]
) -> dict[str, Any]:
    return {
        "bound_service_account_names": list(accounts),
        "bound_service_account_namespaces": list(namespaces),
        "token_policies": list(policies),
        "token_no_default_policy": True,
        "audience": auth.audience,
    }
