"""Each policy of deploy/vault permits what its process does and nothing else, and has no unneeded line."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import pytest

from deploy.vault.policies import ACCESS, ENGINE, ISSUER, NAMES, ROLES, Mounts, render, render_all
from tests.servers import DEFAULT_MOUNTS, Servers

MOUNTS = Mounts(("my-postgres-se",), ("team/",))
PATHS = ("my-postgres-se", "team/orders")  # one for each rule that is made: by its path, and by the prefix
FOREIGN = "other"
CREATE = "CREATE ROLE \"{{name}}\" WITH LOGIN PASSWORD '{{password}}' VALID UNTIL '{{expiration}}';"


@dataclass(frozen=True, slots=True)
class Call:
    """One request, and what root does before it so that only the policy can refuse it."""

    method: str
    path: str
    body: dict[str, Any] | None = None
    before: Callable[[Servers], None] | None = None

    def __str__(self) -> str:
        return f"{self.method} {self.path} {self.body or ''}"


@pytest.fixture
def world(servers: Servers) -> Iterator[Servers]:
    """Both mounts and a foreign one, each with a connection and a role; the default policies again at the end."""
    _write_policies(servers, render_all(MOUNTS))
    for path in (*PATHS, FOREIGN):
        _mount(servers, path)
    yield servers
    for path in (*PATHS, FOREIGN):
        servers.must("DELETE", f"sys/mounts/{path}")
    _write_policies(servers, render_all(DEFAULT_MOUNTS))


def _write_policies(servers: Servers, texts: dict[str, str]) -> None:
    for name, text in texts.items():
        servers.must("POST", f"sys/policies/acl/{name}", policy=text)


def _mount(servers: Servers, path: str) -> None:
    servers.vault("DELETE", f"sys/mounts/{path}")
    servers.must("POST", f"sys/mounts/{path}", type="database")
    servers.must("POST", f"{path}/config/db", **_connection(servers))
    servers.must("POST", f"{path}/roles/app", **ROLE)


def _connection(servers: Servers) -> dict[str, Any]:
    url = f"postgresql://{{{{username}}}}:{{{{password}}}}@{servers.postgres_host}:{servers.postgres_port}/postgres?sslmode=disable"
    plain = {
        "plugin_name": "postgresql-database-plugin",
        "allowed_roles": ["*"],
        "username": "postgres",
        "password": "root",
    }
    return plain | {"connection_url": url, "verify_connection": False}


ROLE: dict[str, Any] = {"db_name": "db", "creation_statements": [CREATE], "default_ttl": "1h", "max_ttl": "24h"}


# -- what each process does
# --------------------------------------------------------------------------------------------------------------


def _engine_calls(servers: Servers) -> Iterator[Call]:
    connection = _connection(servers)
    for path in PATHS:
        yield Call("POST", f"sys/mounts/{path}", {"type": "database", "description": "leasegate {}"}, _absent(path))
        yield Call("GET", f"sys/mounts/{path}")
        yield Call("POST", f"sys/mounts/{path}/tune", {"description": 'leasegate {"owners":[]}'})
        yield Call("POST", f"{path}/config/new", connection, _absent(path, "config/new"))
        yield Call("GET", f"{path}/config/new")
        yield Call("POST", f"{path}/config/new", connection)
        yield Call("DELETE", f"{path}/config/new")
        yield Call("DELETE", f"sys/mounts/{path}")
        yield Call("GET", "sys/health", None, _mounted(path))  # for the calls that follow
    yield from _session_calls()


def _roles_calls(_: Servers) -> Iterator[Call]:
    for path in PATHS:
        yield Call("GET", f"sys/mounts/{path}")
        yield Call("POST", f"{path}/roles/new", ROLE, _absent(path, "roles/new"))
        yield Call("GET", f"{path}/roles/new")
        yield Call("POST", f"{path}/roles/new", ROLE)
        yield Call("DELETE", f"{path}/roles/new")
    yield from _session_calls()


def _session_calls() -> Iterator[Call]:
    yield Call("POST", "auth/token/renew-self", {})
    yield Call("POST", "auth/token/revoke-self", {})


def _access_calls(servers: Servers) -> Iterator[Call]:
    attempt = {"ttl": "25h", "display_name": "demo-app-x", "meta": {"access_request": "r", "attempt": "a"}}
    yield Call("POST", "auth/token/create/leasegate", attempt)
    yield Call("POST", "auth/token/revoke-accessor", {"accessor": _attempt(servers)["accessor"]})
    for path in PATHS:
        lease = _lease(servers, path)
        yield Call("POST", f"sys/leases/renew/{lease}", {"increment": 3600})
        yield Call("POST", f"sys/leases/revoke/{lease}", {"sync": True})
        yield Call("POST", f"sys/leases/revoke-force/{lease}", {})
    yield Call("POST", "auth/token/renew-self", {})
    yield Call("POST", "auth/token/revoke-self", {})


def _issuer_calls(_: Servers) -> Iterator[Call]:
    for path in PATHS:
        yield Call("GET", f"{path}/creds/app")


DOES = {ENGINE: _engine_calls, ROLES: _roles_calls, ACCESS: _access_calls, ISSUER: _issuer_calls}


# -- what it must not
# ----------------------------------------------------------------------------------------------------------------------


def _mounts_forbidden() -> Iterator[Call]:
    """What nobody may do but engine on its own paths."""
    yield Call("GET", "sys/mounts")
    yield Call("POST", f"sys/mounts/{FOREIGN}2", {"type": "database"}, _absent(f"{FOREIGN}2"))
    yield Call("POST", f"sys/mounts/{FOREIGN}/tune", {"description": "mine"})
    yield Call("DELETE", f"sys/mounts/{FOREIGN}")
    yield Call("POST", "sys/mounts/team/orders/below", {"type": "database"})
    yield Call("POST", "sys/remount", {"from": PATHS[0], "to": "team/moved"})


def _config_forbidden(*paths: str) -> Iterator[Call]:
    for path in paths:
        yield Call("GET", f"{path}/config/db")
        yield Call("POST", f"{path}/config/db", {"plugin_name": "postgresql-database-plugin"})
        yield Call("DELETE", f"{path}/config/nothing")
        yield Call("POST", f"{path}/rotate-root/db", {})


def _roles_forbidden(*paths: str) -> Iterator[Call]:
    for path in paths:
        yield Call("GET", f"{path}/roles/app")
        yield Call("POST", f"{path}/roles/app", ROLE)
        yield Call("DELETE", f"{path}/roles/nothing")
        yield Call(
            "POST", f"{path}/static-roles/app", {"db_name": "db", "username": "postgres", "rotation_period": "1h"}
        )


def _creds_forbidden(*paths: str) -> Iterator[Call]:
    for path in paths:
        yield Call("GET", f"{path}/creds/app")
        yield Call("GET", f"{path}/static-creds/app")


def _leases_forbidden(servers: Servers, *paths: str) -> Iterator[Call]:
    for path in paths:
        lease = _lease(servers, path)
        yield Call("POST", f"sys/leases/renew/{lease}", {})
        yield Call("POST", f"sys/leases/revoke/{lease}", {})
        yield Call("POST", "sys/leases/renew", {"lease_id": lease})
        yield Call("POST", "sys/leases/revoke", {"lease_id": lease})
        yield Call("POST", "sys/leases/lookup", {"lease_id": lease})
        yield Call("POST", f"sys/leases/revoke-prefix/{path}", {})
        yield Call("POST", f"sys/leases/revoke-force/{path}", {})
        yield Call("POST", f"sys/leases/revoke-force/{lease}", {})


def _tokens_forbidden() -> Iterator[Call]:
    for policies in ([ENGINE], [ROLES], [ACCESS], [ISSUER], ["default"], ["root"], [ENGINE, ROLES]):
        yield Call("POST", "auth/token/create", {"policies": policies, "no_default_policy": True})
        yield Call("POST", "auth/token/create-orphan", {"policies": policies})
    yield Call("POST", "auth/token/create", {})


def _rest_forbidden() -> Iterator[Call]:
    yield Call("GET", f"sys/policies/acl/{ENGINE}")
    yield Call("POST", f"sys/policies/acl/{ENGINE}", {"policy": 'path "*" { capabilities = ["sudo"] }'})
    yield Call("GET", "sys/auth")
    yield Call("GET", "auth/token/roles/leasegate")
    yield Call("GET", "auth/token/accessors/?list=true")


def _engine_must_not(servers: Servers) -> Iterator[Call]:
    yield from _mounts_forbidden()
    for path in PATHS:
        yield Call("POST", f"sys/mounts/{path}", {"type": "kv"}, _absent(path))
        yield Call("POST", f"sys/mounts/{path}", {"type": "database", "local": True}, _absent(path))
        yield Call("POST", f"sys/mounts/{path}/tune", {"default_lease_ttl": "1s"}, _mounted(path))
    yield from _config_forbidden(FOREIGN)
    yield from _roles_forbidden(*PATHS, FOREIGN)
    yield from _creds_forbidden(*PATHS, FOREIGN)
    yield from _leases_forbidden(servers, *PATHS)
    yield from _attempts_forbidden(servers)
    yield from _tokens_forbidden()
    yield from _rest_forbidden()


def _roles_must_not(servers: Servers) -> Iterator[Call]:
    yield from _mounts_forbidden()
    for path in PATHS:
        yield Call("POST", f"sys/mounts/{path}/tune", {"description": "mine"})
        yield Call("DELETE", f"sys/mounts/{path}")
    yield from _config_forbidden(*PATHS, FOREIGN)
    yield from _roles_forbidden(FOREIGN)
    yield from _creds_forbidden(*PATHS, FOREIGN)
    yield from _leases_forbidden(servers, *PATHS)
    yield from _attempts_forbidden(servers)
    yield from _tokens_forbidden()
    yield from _rest_forbidden()


def _access_must_not(servers: Servers) -> Iterator[Call]:
    yield from _mounts_forbidden()
    for path in PATHS:
        yield Call("GET", f"sys/mounts/{path}")
        yield Call("DELETE", f"sys/mounts/{path}")
    yield from _config_forbidden(*PATHS, FOREIGN)
    yield from _roles_forbidden(*PATHS, FOREIGN)
    yield from _creds_forbidden(*PATHS, FOREIGN)
    yield from _leases_forbidden(servers, FOREIGN)
    for part in ("", "/creds", "/creds/app"):
        yield Call("POST", f"sys/leases/revoke-force/{PATHS[0]}{part}", {})
    own = _lease(servers, PATHS[0])
    for body_form in ("renew", "revoke", "lookup"):
        yield Call("POST", f"sys/leases/{body_form}", {"lease_id": own})
    yield Call("POST", "auth/token/create/leasegate", {"policies": ["root"]})
    yield Call("POST", "auth/token/create/leasegate", {"policies": [ENGINE]})
    yield Call("POST", "auth/token/create", {"policies": [ACCESS]})
    yield Call("POST", "auth/token/create", {"policies": [ISSUER]})
    yield from _rest_forbidden()


def _issuer_must_not(servers: Servers) -> Iterator[Call]:
    yield from _mounts_forbidden()
    yield from _config_forbidden(*PATHS, FOREIGN)
    yield from _roles_forbidden(*PATHS, FOREIGN)
    yield from _creds_forbidden(FOREIGN)
    yield from _leases_forbidden(servers, *PATHS)
    yield from _attempts_forbidden(servers)
    yield from _tokens_forbidden()
    yield from _rest_forbidden()


def _attempts_forbidden(servers: Servers) -> Iterator[Call]:
    accessor = _attempt(servers)["accessor"]
    yield Call("POST", "auth/token/create/leasegate", {"ttl": "1h"})
    yield Call("POST", "auth/token/lookup-accessor", {"accessor": accessor})
    yield Call("POST", "auth/token/revoke-accessor", {"accessor": accessor})


MUST_NOT = {ENGINE: _engine_must_not, ROLES: _roles_must_not, ACCESS: _access_must_not, ISSUER: _issuer_must_not}


# -- asking
# ----------------------------------------------------------------------------------------------------------------------


def _absent(mount: str, below: str = "") -> Callable[[Servers], None]:
    def delete(servers: Servers) -> None:
        servers.must("DELETE", f"{mount}/{below}" if below else f"sys/mounts/{mount}")

    return delete


def _mounted(path: str) -> Callable[[Servers], None]:
    return lambda servers: _mount(servers, path)


def _attempt(servers: Servers) -> dict[str, Any]:
    return dict(servers.must("POST", "auth/token/create/leasegate", ttl="1h")["auth"])


def _lease(servers: Servers, path: str) -> str:
    return str(servers.must("GET", f"{path}/creds/app")["lease_id"])


def _status(servers: Servers, call: Call, token: str) -> int:
    if call.before:
        call.before(servers)
    return servers.vault(call.method, call.path, token, **(call.body or {}))[0]


def _failed(servers: Servers, policy: str, token: str) -> Iterator[str]:
    """What the process does and the policy does not let it do."""
    for call in DOES[policy](servers):
        if (status := _status(servers, call, token)) >= 300:
            yield f"{call}: {status}"


def _permitted(servers: Servers, policy: str, token: str) -> Iterator[str]:
    """What the process must not do and the policy lets it do; Vault says 400 where it is a token role that refuses."""
    for call in MUST_NOT[policy](servers):
        if (status := _status(servers, call, token)) not in (403, 400):
            yield f"{call}: {status}"


@pytest.mark.parametrize("policy", NAMES)
def test_a_process_can_do_its_work(world: Servers, policy: str) -> None:
    assert list(_failed(world, policy, world.token_with(policy))) == []


@pytest.mark.parametrize("policy", NAMES)
def test_a_process_is_refused_the_rest(world: Servers, policy: str) -> None:
    assert list(_permitted(world, policy, world.token_with(policy))) == []


def test_a_session_without_policies_can_do_nothing(world: Servers) -> None:
    """C1: what a team logs in with permits nothing that any process does, and nothing that it must not."""
    made = world.must("POST", "auth/token/create-orphan", policies=["nothing"], no_default_policy=True, type="batch")
    nobody = made["auth"]["client_token"]
    for policy in NAMES:
        for call in (*DOES[policy](world), *MUST_NOT[policy](world)):
            status = world.vault(call.method, call.path, nobody, **(call.body or {}))[0]
            assert status == 403 or call.path == "sys/health", call


def test_an_attempt_token_is_an_orphan_that_can_only_read_one_credential(world: Servers) -> None:
    access = world.token_with(ACCESS)
    attempt = world.must("POST", "auth/token/create/leasegate", access, ttl="25h", display_name="demo-app-x")["auth"]
    assert (attempt["orphan"], attempt["renewable"], attempt["policies"]) == (True, False, [ISSUER])
    world.must("POST", "auth/token/revoke-self", access)
    assert world.vault("GET", f"{PATHS[0]}/creds/app", attempt["client_token"])[0] == 200
    assert world.vault("POST", "auth/token/renew-self", attempt["client_token"], increment="1h")[0] == 403


# -- no line too many
# ----------------------------------------------------------------------------------------------------------------------


def _without(text: str) -> Iterator[tuple[str, str]]:
    """Every way to take one thing out of a policy: name and what is left."""
    lines = text.splitlines()
    for number, line in enumerate(lines):
        if line.strip() and not line.startswith("#"):
            yield f"line {number + 1} {line.strip()}", "\n".join(lines[:number] + lines[number + 1 :])
    for found in re.finditer(r'^path "(.+?)" \{\n.*?^\}\n', text, re.MULTILINE | re.DOTALL):
        yield f"rule {found[1]}", text[: found.start()] + text[found.end() :]
        for inner in re.finditer(r'"(\w+)"(?=[^\[\]]*\]\n)', found[0].split("\n")[1] + "\n"):
            yield f"capability {inner[1]} of {found[1]}", _cut(text, found, inner)
        for block in re.finditer(r"^  allowed_parameters = \{\n.*?^  \}\n", found[0], re.MULTILINE | re.DOTALL):
            start = found.start() + block.start()
            yield f"all limits of {found[1]}", text[:start] + text[start + len(block[0]) :]
        for limit in re.finditer(r'^    "(\w+)" = (\[.+\])$', found[0], re.MULTILINE):
            start = found.start() + limit.start(2)
            yield f"the values of {limit[1]} in {found[1]}", text[:start] + "[]" + text[start + len(limit[2]) :]


def _cut(text: str, rule: re.Match[str], capability: re.Match[str]) -> str:
    """Without one capability of a rule's second line."""
    head, line, rest = rule[0].split("\n", 2)
    left = [name for name in re.findall(r'"(\w+)"', line) if name != capability[1]]
    shorter = "  capabilities = [" + ", ".join(f'"{name}"' for name in left) + "]"
    return text[: rule.start()] + "\n".join([head, shorter, rest]) + text[rule.end() :]


CUTS = [(policy, what, left) for policy in NAMES for what, left in _without(render(policy, MOUNTS))]


@pytest.mark.parametrize(
    ("policy", "left"),
    [(policy, left) for policy, _, left in CUTS],
    ids=[f"{policy}-{what}" for policy, what, _ in CUTS],
)
def test_nothing_can_be_left_out(world: Servers, policy: str, left: str) -> None:
    """Without any one line, rule, capability or limit the policy is invalid, forbids too much or permits too much."""
    status, _ = world.vault("POST", f"sys/policies/acl/{policy}", policy=left)
    if status == 400:
        return
    token = world.token_with(policy)
    missed = next(_failed(world, policy, token), None) or next(
        _permitted(world, policy, world.token_with(policy)), None
    )
    assert missed, left


def test_every_line_is_tried() -> None:
    """The list above has every line that is no comment, and every capability and parameter."""
    for policy in NAMES:
        text, tried = render(policy, MOUNTS), [what for name, what, _ in CUTS if name == policy]
        assert sum(what.startswith("line ") for what in tried) == sum(
            bool(line) and not line.startswith("#") for line in text.splitlines()
        )
        capabilities = sum(len(re.findall(r'"\w+"', line)) for line in text.splitlines() if "capabilities" in line)
        assert sum(what.startswith("capability ") for what in tried) == capabilities
