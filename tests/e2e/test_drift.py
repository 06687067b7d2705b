"""Drift in Vault is corrected at the next resync, and the watcher says so: real servers, a short interval."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from dev.stack.stack import LocalStack
from tests.e2e.space import ENGINE, ROLE, Space, space
from tests.eventually import eventually

INTERVAL_S = 2


@pytest.fixture(scope="module")
def often(stack: LocalStack) -> Iterator[LocalStack]:
    """The stack, whose watcher looks at everything each other second."""
    watcher = stack.process("watcher")
    stack.set_options("watcher", resync_interval=str(INTERVAL_S))
    _restart(watcher)
    yield stack
    stack.set_options("watcher")
    _restart(watcher)


def _restart(watcher: Any) -> None:
    watcher.terminate()
    watcher.start()
    watcher.wait_ready()


@pytest.fixture(scope="module")
def guide(often: LocalStack) -> Iterator[Space]:
    """The guide's objects with a live lease, on a mount of their own."""
    with space(often, "drift") as made:
        made.apply(*made.guide())
        limits = {"maxOpenConnections": 4, "maxIdleConnections": 2, "maxConnectionLifetime": "90s"}
        made.patch(ENGINE, {"spec": {"postgres": limits | {"allowedRoles": ["k8s.-.drift.*"]}}})
        made.patch(ROLE, {"spec": {"revocationStatements": ['DROP ROLE IF EXISTS "{{name}}";']}})
        made.granted()
        yield made


def _config(guide: Space) -> str:
    return f"{guide.mount}/config/k8s.-.{guide.name}.postgres-app"


def _role(guide: Space) -> str:
    return f"{guide.mount}/roles/k8s.-.{guide.name}.psql-role"


def _read(guide: Space, path: str) -> Any:
    """What Vault shows at a path but for what it counts or makes up itself; None where there is nothing."""
    answer = guide.stack.vault_api().call("GET", path)
    return answer.body["data"] if answer.ok else None


def _write(guide: Space, path: str, **body: Any) -> None:
    answer = guide.stack.vault_api().call("POST", path, body)
    assert answer.ok, answer.errors


def _remove(guide: Space, path: str) -> None:
    answer = guide.stack.vault_api().call("DELETE", path)
    assert answer.ok, answer.errors


def _put_back(guide: Space, expected: dict[str, Any]) -> None:
    """Wait until Vault shows all of it again."""

    def same() -> bool:
        for path, wanted in expected.items():
            found = _read(guide, path)
            assert found == wanted, (path, found)
        return True

    eventually(same, timeout_s=45, what="everything as it was in Vault")


def test_what_is_changed_by_hand_in_vault_is_corrected(guide: Space) -> None:
    """Limits, allowed roles, template and URL of the connection; lists, TTLs and connection of the role."""
    before = {path: _read(guide, path) for path in (_config(guide), _role(guide))}
    url = before[_config(guide)]["connection_details"]["connection_url"]
    _write(
        guide,
        _config(guide),
        connection_url=url.replace("sslmode=disable", "sslmode=prefer"),
        max_open_connections=9,
        max_idle_connections=0,
        max_connection_lifetime="5s",
        allowed_roles="*",
        username_template="{{ random 20 }}",
        verify_connection=False,
    )
    _write(
        guide,
        _role(guide),
        db_name="somewhere-else",
        creation_statements=["CREATE ROLE \"{{name}}\" SUPERUSER LOGIN PASSWORD '{{password}}';"],
        revocation_statements=[],
        renew_statements=["SELECT 1;"],
        rollback_statements=["SELECT 1;"],
        default_ttl="17s",
        max_ttl="19s",
    )
    _put_back(guide, before)
    for name in (ENGINE, ROLE):
        guide.reported(name, "Warning", "DriftCorrected")
        guide.phase(name, "Success")


def test_what_is_removed_by_hand_in_vault_is_made_again(guide: Space) -> None:
    """The connection and the role; what was issued stays in use."""
    before = {path: _read(guide, path) for path in (_config(guide), _role(guide))}
    secret = guide.secret(guide.secret_name())
    for path in before:
        _remove(guide, path)
    _put_back(guide, before)
    assert guide.secret(guide.secret_name()) == secret
    assert guide.user_works(secret)


def test_a_connection_led_elsewhere_is_led_back_at_once_under_live_leases(guide: Space) -> None:
    """Live leases belong to the right database, so this does not wait for them, unlike a changed AppBinding."""
    before, secret = _read(guide, _config(guide)), guide.secret(guide.secret_name())
    other = "led_elsewhere"
    guide.stack.psql(f"create database {other}")
    try:
        url = before["connection_details"]["connection_url"]
        _write(guide, _config(guide), connection_url=url.replace("/postgres?", f"/{other}?"), verify_connection=False)
        _put_back(guide, {_config(guide): before})
        assert guide.status(ENGINE)["database"].endswith("/postgres")
        assert guide.secret(guide.secret_name()) == secret
        guide.decide("deny")
        eventually(lambda: not guide.database_users(), timeout_s=45, what="the user dropped at the right database")
    finally:
        guide.stack.psql(f"drop database {other} with (force)")


def test_a_later_engine_that_wants_the_connection_otherwise_is_refused(guide: Space) -> None:
    """The condition names the older SecretEngine; one that agrees with it is accepted later."""
    before, owners = _read(guide, _config(guide)), guide.described()
    later = guide.guide("postgresSecretEngine")[0]
    later["metadata"]["name"] = "later"
    later["spec"]["postgres"] |= {"maxOpenConnections": 77}
    guide.apply(later)
    guide.phase("secretengine/later", "Failed")
    reported = guide.reported(
        "secretengine/later", "Warning", "ConnectionConflict", f"{guide.name}/postgresql-engine", "maxOpenConnections"
    )
    assert "allowedRoles" in reported
    assert (_read(guide, _config(guide)), guide.described()) == (before, owners)
    guide.phase(ENGINE, "Success")
    later["spec"]["postgres"] = guide.get(ENGINE)["spec"]["postgres"]
    guide.apply(later)
    guide.phase("secretengine/later", "Success")
    assert _read(guide, _config(guide)) == before
    guide.kubectl("delete", "secretengine/later", "--timeout=60s")
    assert (_read(guide, _config(guide)), guide.described()) == (before, owners)


def test_a_mount_removed_by_hand_is_made_again(guide: Space) -> None:
    """Vault ends its leases; mount, connection and role are there again, and what is asked for again is issued."""
    guide.kubectl("delete", "databaseaccessrequest", "--all", "--timeout=60s")
    before = {path: _read(guide, path) for path in (_config(guide), _role(guide))}
    description = guide.described()
    _remove(guide, f"sys/mounts/{guide.mount}")
    _put_back(guide, before)
    assert guide.described() == description
    guide.apply(*guide.guide("postgresAccessRequest"))
    assert guide.user_works(guide.secret(guide.granted()))
