"""Each field of the four kinds is wrong in turn: a clear refusal or condition, never a crash or a half-made mount."""

from __future__ import annotations

import copy
import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pytest
import yaml

from dev.demo.story import EXAMPLES, REPOSITORY
from dev.stack.stack import LocalStack
from tests.eventually import eventually

NAMESPACE = "bad"
MOUNT = "team/bad"
OTHER_MOUNT = "database"  # the operator permits it to every namespace, so that the path is not what is wrong
GONE = object()


def _base() -> dict[str, dict[str, Any]]:
    """The guide's objects by kind, in a namespace and on a mount of their own."""
    objects: dict[str, dict[str, Any]] = {}
    for file in ("postgres-app", "postgresSecretEngine", "postgresRole", "postgresAccessRequest"):
        text = (
            (REPOSITORY / EXAMPLES / f"{file}.yaml")
            .read_text(encoding="utf-8")
            .replace("namespace: demo", f"namespace: {NAMESPACE}")
        )
        for document in yaml.safe_load_all(text.replace("my-postgres-se", MOUNT)):
            objects[document["kind"]] = document
    return objects


@dataclass(frozen=True)
class Case:
    """One wrong field.

    Attributes:
        kind: Kind of the object.
        at: Path of the field below spec, with dots.
        value: What stands there.
        says: A regular expression that the refusal, or the condition and the Event, must match.
        on: The object that must say so, if it is not the wrong one itself: kind of the base's object that uses it.
    """

    kind: str
    at: str
    value: Any
    says: str
    on: str = ""

    def __str__(self) -> str:
        """Name the case."""
        return f"{self.kind}.{self.at}={'gone' if self.value is GONE else str(self.value)[:24]}"


CASES = [
    # the database's AppBinding, told by the SecretEngine that uses it
    Case("AppBinding", "clientConfig", GONE, "clientConfig"),
    Case("AppBinding", "clientConfig.service.name", "no such host", "service.name|host", on="SecretEngine"),
    Case("AppBinding", "clientConfig.service.name", GONE, "name"),
    Case("AppBinding", "clientConfig.service.port", 0, "port"),
    Case("AppBinding", "clientConfig.service.port", 65536, "port"),
    Case("AppBinding", "clientConfig.service.port", GONE, "port"),
    Case(
        "AppBinding",
        "clientConfig.url",
        "postgresql://127.0.0.1:1/postgres",
        "connect|refused|reach",
        on="SecretEngine",
    ),
    Case("AppBinding", "clientConfig.service.scheme", "http", "scheme", on="SecretEngine"),
    Case("AppBinding", "clientConfig.service.query", "sslmode=nonsense", "sslmode", on="SecretEngine"),
    Case("AppBinding", "clientConfig.service.path", "no-such-database", "no-such-database|database", on="SecretEngine"),
    Case("AppBinding", "clientConfig.url", "postgres.demo.svc:5432/postgres", "scheme|url", on="SecretEngine"),
    Case("AppBinding", "clientConfig.url", "postgresql://u:p@127.0.0.1:5432/postgres", "user", on="SecretEngine"),
    Case("AppBinding", "clientConfig.caBundle", "!!!", "caBundle|base64|byte"),
    Case("AppBinding", "clientConfig.insecureSkipTLSVerify", "yes", "insecureSkipTLSVerify"),
    Case("AppBinding", "secret.name", "no-such-secret", "no-such-secret", on="SecretEngine"),
    Case(
        "AppBinding",
        "secretTransforms",
        [{"renameKey": {"from": "username"}}],
        "renameKey|secretTransforms",
        on="SecretEngine",
    ),
    Case(
        "AppBinding",
        "secretTransforms",
        [{"removeKey": {"key": "password"}}],
        "password|authentication",
        on="SecretEngine",
    ),
    # the SecretEngine
    Case("SecretEngine", "vaultRef", GONE, "vaultRef"),
    Case("SecretEngine", "vaultRef.name", "no-such-vault", "no-such-vault"),
    Case("SecretEngine", "path", "sys", "path|mount|sys"),
    Case("SecretEngine", "path", "../sys", "path"),
    Case("SecretEngine", "path", "not-allowed", "mounts.owned"),
    Case("SecretEngine", "postgres", GONE, "postgres"),
    Case("SecretEngine", "postgres.databaseRef.name", "no-such-app", "no-such-app"),
    Case("SecretEngine", "postgres.databaseRef.namespace", "no-such-namespace", "no-such-namespace"),
    Case("SecretEngine", "postgres.pluginName", "no-such-plugin", "plugin"),
    Case("SecretEngine", "postgres.allowedRoles", "*", "allowedRoles"),
    Case("SecretEngine", "postgres.allowedRoles", [""], "allowedRoles"),
    Case("SecretEngine", "postgres.maxOpenConnections", "many", "maxOpenConnections"),
    Case("SecretEngine", "postgres.maxIdleConnections", "few", "maxIdleConnections"),
    Case("SecretEngine", "postgres.maxConnectionLifetime", "soon", "maxConnectionLifetime"),
    # the PostgresRole
    Case("PostgresRole", "vaultRef", GONE, "vaultRef"),
    Case("PostgresRole", "vaultRef.name", "no-such-vault", "no-such-vault"),
    Case("PostgresRole", "path", "no-such-mount", "no-such-mount"),
    Case("PostgresRole", "databaseRef", GONE, "databaseRef|databaseName"),
    Case("PostgresRole", "databaseRef.name", "no-such-app", "no-such-app"),
    Case("PostgresRole", "creationStatements", GONE, "creationStatements"),
    Case("PostgresRole", "creationStatements", [], "creationStatements"),
    Case("PostgresRole", "creationStatements", [""], "creationStatements"),
    Case("PostgresRole", "revocationStatements", "DROP", "revocationStatements"),
    Case("PostgresRole", "rollbackStatements", [7], "rollbackStatements"),
    Case("PostgresRole", "renewStatements", {"a": 1}, "renewStatements"),
    Case("PostgresRole", "defaultTTL", "soon", "defaultTTL"),
    Case("PostgresRole", "defaultTTL", "48h", "defaultTTL|maxTTL|default_ttl|max_ttl"),
    Case("PostgresRole", "maxTTL", "-1h", "maxTTL"),
    # the DatabaseAccessRequest
    Case("DatabaseAccessRequest", "roleRef", GONE, "roleRef"),
    Case("DatabaseAccessRequest", "roleRef.kind", "MySQLRole", "MySQLRole|kind"),
    Case("DatabaseAccessRequest", "roleRef.apiGroup", "other.group", "apiGroup|other.group"),
    Case("DatabaseAccessRequest", "roleRef.name", "no-such-role", "no-such-role"),
    Case("DatabaseAccessRequest", "roleRef.namespace", "no-such-namespace", "no-such-namespace"),
    Case("DatabaseAccessRequest", "subjects", GONE, "subjects"),
    Case("DatabaseAccessRequest", "subjects", [], "subjects"),
    Case("DatabaseAccessRequest", "subjects", [{"kind": "Robot", "name": "r2"}], "Robot|kind"),
    Case("DatabaseAccessRequest", "subjects", [{"kind": "ServiceAccount", "name": ""}], "name"),
    Case("DatabaseAccessRequest", "ttl", "soon", "ttl"),
    Case("DatabaseAccessRequest", "ttl", "0", "ttl"),
]
VAULT_CASES = [
    Case("AppBinding", "clientConfig.url", "https://127.0.0.1:1", "--vault-config"),
    Case("AppBinding", "clientConfig.service.name", "no-such-service", "no-such-service"),
    Case("AppBinding", "parameters", GONE, "parameters|secret|log ?in"),
    Case("AppBinding", "parameters.vaultRole", GONE, "vaultRole"),
    Case("AppBinding", "parameters.vaultRole", "no-such-role", "no-such-role|role"),
    Case("AppBinding", "parameters.serviceAccountName", "no-such-account", "no-such-account"),
    Case("AppBinding", "parameters.path", "no-such-auth", "no-such-auth|permission|log ?in"),
]


@pytest.fixture(scope="module")
def enabled(stack: LocalStack) -> Iterator[LocalStack]:
    """A namespace with the guide's objects, all well."""
    stack.kubectl("create", "namespace", NAMESPACE)
    stack.kubectl("apply", "-n", NAMESPACE, "-f", str(stack.enabled_namespace(NAMESPACE)))
    for item in _base().values():
        stack.kubectl("apply", "-f", "-", input=json.dumps(item))
    eventually(lambda: _phase(stack, "postgresrole/psql-role") == "Success", timeout_s=60, what="the good objects")
    yield stack
    stack.kubectl("delete", "namespace", NAMESPACE, "--timeout=90s")
    assert _mounts(stack) == set()


def _phase(stack: LocalStack, name: str) -> str:
    return stack.kubectl("get", "-n", NAMESPACE, name, "-o", "jsonpath={.status.phase}").stdout


def _mounts(stack: LocalStack) -> set[str]:
    """Mounts of the tests' prefix, by name."""
    return {
        path
        for path in json.loads(stack.bao("secrets", "list", "-format=json").stdout)
        if path.startswith((MOUNT, OTHER_MOUNT, "not-allowed"))
    }


def _wrong(base: dict[str, Any], at: str, value: Any) -> dict[str, Any]:
    wrong = copy.deepcopy(base)
    *parents, last = ("spec." + at).split(".")
    place = wrong
    for key in parents:
        place = place.setdefault(key, {})
    if value is GONE:
        place.pop(last, None)
    else:
        place[last] = value
    return wrong


def _says(stack: LocalStack, name: str, pattern: str) -> bool:
    """Whether a condition of the object and an Event on it match the pattern."""
    kind, _, plain = name.partition("/")
    found = json.loads(stack.kubectl("get", "-n", NAMESPACE, kind, plain, "-o", "json").stdout)
    conditions = [
        f"{c.get('reason', '')} {c.get('message', '')}" for c in found.get("status", {}).get("conditions", [])
    ]
    events = json.loads(
        stack.kubectl(
            "get", "-n", NAMESPACE, "events", "-o", "json", f"--field-selector=involvedObject.name={plain}"
        ).stdout
    )
    texts = [
        f"{e.get('reason', '')} {e.get('message', '')}"
        for e in events["items"]
        if e["involvedObject"]["kind"] == found["kind"]
    ]
    assert any(re.search(pattern, text, re.I) for text in conditions), (
        f"no condition of {name} says {pattern!r}: {found.get('status')}"
    )
    assert any(re.search(pattern, text, re.I) for text in texts), f"no Event of {name} says {pattern!r}: {texts}"
    assert found["status"].get("phase") != "Success"
    return True


def _try(stack: LocalStack, wrong: dict[str, Any], dependent: dict[str, Any] | None, says: str) -> None:
    """Apply the wrong object, and what uses it; see the refusal, or the condition and Event."""
    pids = {name: stack.process(name).pid for name in ("engine", "roles", "access", "watcher")}
    mounts = _mounts(stack)
    done = stack.kubectl("apply", "-f", "-", input=json.dumps(wrong), check=False)
    if done.returncode:
        assert re.search(says, done.stderr, re.I), done.stderr
        return
    speaker = dependent or wrong
    try:
        if dependent:
            stack.kubectl("apply", "-f", "-", input=json.dumps(dependent))
        name = f"{speaker['kind'].lower()}/{speaker['metadata']['name']}"
        eventually(lambda: _says(stack, name, says), timeout_s=40, every_s=0.5)
    finally:
        for item in [dependent, wrong] if dependent else [wrong]:
            assert item is not None
            stack.kubectl(
                "delete", "-n", NAMESPACE, f"{item['kind'].lower()}/{item['metadata']['name']}", "--timeout=40s"
            )
    assert _mounts(stack) == mounts, "something half-made is left in Vault"
    assert {name: stack.process(name).pid for name in pids} == pids


@pytest.mark.parametrize("case", CASES, ids=str)
def test_a_wrong_field_is_reported(enabled: LocalStack, case: Case) -> None:
    """The wrong field is refused by the API server, or named by condition and Event."""
    base = _base()
    wrong = _wrong(base[case.kind], case.at, case.value)
    wrong["metadata"]["name"] = "wrong"
    dependent = None
    if case.on:
        dependent = _wrong(base[case.on], "postgres.databaseRef.name", "wrong")
        dependent["metadata"]["name"] = "user-of-wrong"
        dependent = _wrong(dependent, "path", OTHER_MOUNT)
    if case.kind == "SecretEngine" and case.at != "path":
        wrong = _wrong(wrong, "path", OTHER_MOUNT)
    _try(enabled, wrong, dependent, case.says)


@pytest.mark.parametrize("case", VAULT_CASES, ids=str)
def test_a_wrong_field_of_vaults_binding_is_reported(enabled: LocalStack, case: Case) -> None:
    """What is wrong with the AppBinding of Vault is told by the SecretEngine that names it."""
    good = json.loads(enabled.kubectl("get", "-n", NAMESPACE, "appbinding", "vault", "-o", "json").stdout)
    wrong = _wrong({key: good[key] for key in ("apiVersion", "kind", "spec")}, case.at, case.value)
    wrong["metadata"] = {"name": "wrong-vault", "namespace": NAMESPACE}
    dependent = _wrong(_wrong(_base()["SecretEngine"], "vaultRef.name", "wrong-vault"), "path", OTHER_MOUNT)
    dependent["metadata"]["name"] = "user-of-wrong"
    _try(enabled, wrong, dependent, case.says)
