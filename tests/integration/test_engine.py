"""The engine service against a real bao and PostgreSQL, called over real gRPC."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from typing import Any

import pytest

from leasegate.engine.v1 import engine_service_pb2 as pb
from leasegate.engine.v1 import engine_service_pb2_grpc
from services.common.errors import (
    ChangeDueError,
    LeasesInUseError,
    MountConflictError,
    SpecInvalidError,
    TeamLoginHasPoliciesError,
    VaultAuthMissingError,
    VaultAuthRefusedError,
    VaultFailedError,
    VaultPolicyMissingError,
    VaultRefusedError,
    VaultSealedError,
    VaultUnavailableError,
)
from services.common.logs import configure
from services.common.vault.sessions import Sessions
from services.engine.scope import SCOPE
from tests.integration.vault_services import (
    MOUNT,
    connection,
    delete_engine,
    engine_service,
    engine_service_with,
    ensure_engine,
    own_auth_file,
    paused,
    quiet,
    target,
    vaults_of,
)
from tests.servers import Servers
from tests.vaults import entry_of, vaults

CONFIG = f"{MOUNT}/config/k8s.-.demo.postgres-app"
PLUGIN = "postgresql-database-plugin"
Stub = engine_service_pb2_grpc.EngineServiceStub


@pytest.fixture
def engine(servers: Servers) -> Iterator[Stub]:
    with engine_service(servers) as stub:
        yield stub


@pytest.fixture(autouse=True)
def _clean(servers: Servers) -> Iterator[None]:
    yield
    for path in (MOUNT, "database", "team-a", "team-b"):
        servers.vault("DELETE", f"sys/mounts/{path}")


def shown(servers: Servers, path: str = CONFIG) -> dict[str, object]:
    data = servers.must("GET", path)["data"]
    return {**data, **data.pop("connection_details")}


def description(servers: Servers, path: str = MOUNT) -> str:
    return str(servers.must("GET", f"sys/mounts/{path}")["data"]["description"])


def mounted(servers: Servers, path: str = MOUNT) -> bool:
    return servers.vault("GET", f"sys/mounts/{path}")[0] == 200


def test_the_guides_engine_is_there(servers: Servers, engine: Stub) -> None:
    answer = engine.EnsureEngine(ensure_engine(servers))

    assert (answer.mount, answer.connection, answer.changed) == (MOUNT, "k8s.-.demo.postgres-app", True)
    assert answer.ownership == pb.MOUNT_OWNERSHIP_OWNED
    assert not answer.notices
    assert answer.target.address.lower() == servers.vault_addr
    assert servers.must("GET", f"sys/mounts/{MOUNT}")["data"]["type"] == "database"
    owned = '"namespace":"demo","owners":["demo/postgresql-engine"]'
    assert description(servers) == f'leasegate {{"cluster":"11111111-aaaa",{owned}}}'
    found = shown(servers)
    place = f"{servers.postgres_host}:{servers.postgres_port}"
    query = "sslmode=disable&lock_timeout=3000"
    assert found["connection_url"] == f"postgresql://{{{{username}}}}:{{{{password}}}}@{place}/postgres?{query}"
    assert found["username"] == "postgres"
    assert found["allowed_roles"] == ["k8s.-.demo.*", "leasegate-cleanup.*"]
    assert found["plugin_name"] == "postgresql-database-plugin"
    assert found["username_template"] == "{{ .DisplayName | truncate 63 }}"
    assert "max_open_connections" not in found


@pytest.fixture
def admin(servers: Servers) -> Iterator[pb.EnsureEngineRequest]:
    """The guide's engine, logging in as a user whose password a test may change."""
    servers.psql("CREATE ROLE vaultadmin SUPERUSER LOGIN PASSWORD 'first'")
    request = ensure_engine(servers)
    request.postgres.database.username, request.postgres.database.password = "vaultadmin", "first"
    yield request
    servers.psql("DROP ROLE vaultadmin")


def test_a_second_time_changes_nothing_and_writes_nothing(
    servers: Servers, engine: Stub, admin: pb.EnsureEngineRequest
) -> None:
    engine.EnsureEngine(admin)
    servers.psql("ALTER ROLE vaultadmin PASSWORD 'other'")  # a write would now be refused

    assert not engine.EnsureEngine(admin).changed


def test_limits_are_written_only_when_set_and_cleared_when_taken_away(servers: Servers, engine: Stub) -> None:
    request = ensure_engine(servers)
    request.postgres.max_open_connections = 7
    request.postgres.max_idle_connections = -1
    request.postgres.max_connection_lifetime.seconds = 90
    request.postgres.allowed_roles[:] = ["k8s.-.demo.psql-role"]
    engine.EnsureEngine(request)
    found = shown(servers)
    assert (found["max_open_connections"], found["max_idle_connections"], found["max_connection_lifetime"]) == (
        7,
        -1,
        "90s",
    )
    assert found["allowed_roles"] == ["k8s.-.demo.psql-role", "leasegate-cleanup.*"]
    assert not engine.EnsureEngine(request).changed

    for field in ("max_open_connections", "max_idle_connections", "max_connection_lifetime", "allowed_roles"):
        request.postgres.ClearField(field)
    assert engine.EnsureEngine(request).changed
    found = shown(servers)
    assert (found["max_open_connections"], found["max_idle_connections"], found["max_connection_lifetime"]) == (
        0,
        0,
        "0s",
    )
    assert found["allowed_roles"] == ["k8s.-.demo.*", "leasegate-cleanup.*"]
    assert not engine.EnsureEngine(request).changed


def test_a_changed_password_is_pushed(servers: Servers, engine: Stub, admin: pb.EnsureEngineRequest) -> None:
    engine.EnsureEngine(admin)
    servers.psql("ALTER ROLE vaultadmin PASSWORD 'an%other/ pass'")
    admin.postgres.database.password = "an%other/ pass"

    assert engine.EnsureEngine(admin).changed

    servers.must(
        "POST",
        f"{MOUNT}/roles/k8s.-.demo.probe",
        db_name="k8s.-.demo.postgres-app",
        creation_statements=['CREATE ROLE "{{name}}"'],
    )
    servers.must("POST", f"{MOUNT}/reset/k8s.-.demo.postgres-app")
    servers.must(
        "POST", f"sys/leases/revoke/{servers.must('GET', f'{MOUNT}/creds/k8s.-.demo.probe')['lease_id']}", sync=True
    )


def test_after_a_restart_the_password_is_written_once(servers: Servers, engine: Stub) -> None:
    request = ensure_engine(servers)
    engine.EnsureEngine(request)
    request.postgres.database.password = "wrong-password"
    with engine_service(servers) as restarted, pytest.raises(VaultRefusedError) as refused:
        restarted.EnsureEngine(request)
    assert "wrong-password" not in refused.value.message


@pytest.mark.parametrize(
    ("break_it", "expected"),
    [
        (
            lambda r: setattr(r.postgres.database.service, "port", 1),
            ("127.0.0.1:1", "connection refused", "reaches this host and port"),
        ),
        (
            lambda r: setattr(r.postgres.database, "password", "hunter2 %/"),
            ("password authentication failed", "user and password"),
        ),
    ],
)
def test_a_database_that_cannot_be_used_is_named_without_the_password(
    servers: Servers, engine: Stub, break_it: Callable[[pb.EnsureEngineRequest], None], expected: tuple[str, ...]
) -> None:
    request = ensure_engine(servers)
    break_it(request)

    with pytest.raises(VaultRefusedError) as refused:
        engine.EnsureEngine(request)

    assert all(text in refused.value.message for text in expected)
    assert "hunter2" not in refused.value.message
    assert refused.value.retry_after_s is not None
    assert not refused.value.changed_nothing  # the mount is enabled
    assert servers.vault("GET", CONFIG)[0] == 404


def test_another_engine_at_the_path_is_a_conflict(servers: Servers, engine: Stub) -> None:
    servers.must("POST", "sys/mounts/team-a", type="kv")
    request = ensure_engine(servers, "team-a")
    request.adopt_mount = True

    with pytest.raises(MountConflictError) as conflict:
        engine.EnsureEngine(request)

    assert "type kv" in conflict.value.message
    assert dict(conflict.value.metadata) == {"path": "team-a", "type": "kv"}
    assert conflict.value.changed_nothing


def test_a_foreign_mount_is_used_only_when_asked_and_never_removed(servers: Servers, engine: Stub) -> None:
    servers.must("POST", "sys/mounts/team-a", type="database", description="the DBAs' own, hands off")
    servers.must("POST", "team-a/roles/theirs", db_name="x", creation_statements=["SELECT 1"])
    request = ensure_engine(servers, "team-a")
    with pytest.raises(MountConflictError, match="adopt-mount"):
        engine.EnsureEngine(request)
    assert description(servers, "team-a") == "the DBAs' own, hands off"

    request.adopt_mount = True
    assert engine.EnsureEngine(request).ownership == pb.MOUNT_OWNERSHIP_ADOPTED
    assert description(servers, "team-a").startswith("the DBAs' own, hands off leasegate {")
    other = ensure_engine(servers, "team-a", name="another")
    with pytest.raises(MountConflictError, match="demo/postgresql-engine"):
        engine.EnsureEngine(other)

    answer = engine.DeleteEngine(delete_engine(servers, "team-a"))

    assert not answer.unmounted
    assert servers.vault("GET", "team-a/config/k8s.-.demo.postgres-app")[0] == 404
    assert servers.vault("GET", "team-a/roles/theirs")[0] == 200
    marker = 'leasegate {"cluster":"11111111-aaaa","namespace":"demo","owners":[],"adopted":true}'
    assert description(servers, "team-a") == f"the DBAs' own, hands off {marker}"
    with pytest.raises(MountConflictError):
        engine.EnsureEngine(other)


def test_two_clusters_of_one_name_never_overwrite_each_other(servers: Servers, engine: Stub) -> None:
    engine.EnsureEngine(ensure_engine(servers))
    theirs = ensure_engine(servers, uid="22222222-bbbb")
    theirs.adopt_mount = True

    with pytest.raises(MountConflictError) as conflict:
        engine.EnsureEngine(theirs)
    assert conflict.value.metadata["owner"] == "11111111-aaaa"
    answer = engine.DeleteEngine(delete_engine(servers, uid="22222222-bbbb"))

    assert not answer.unmounted
    assert mounted(servers)
    assert servers.vault("GET", CONFIG)[0] == 200


def test_a_mount_goes_with_its_last_owner(servers: Servers, engine: Stub) -> None:
    engine.EnsureEngine(ensure_engine(servers))
    second = ensure_engine(servers, name="second")
    second.postgres.name = "k8s.-.demo.other-app"
    assert engine.EnsureEngine(second).changed
    assert '"owners":["demo/postgresql-engine","demo/second"]' in description(servers)

    answer = engine.DeleteEngine(delete_engine(servers))
    assert (answer.unmounted, list(answer.remaining_owners)) == (False, ["demo/second"])
    assert servers.vault("GET", CONFIG)[0] == 404
    assert servers.vault("GET", f"{MOUNT}/config/k8s.-.demo.other-app")[0] == 200
    assert engine.DeleteEngine(delete_engine(servers)).remaining_owners == ["demo/second"]

    last = delete_engine(servers, name="second")
    last.connection = "k8s.-.demo.other-app"
    assert engine.DeleteEngine(last).unmounted
    assert not mounted(servers)
    assert engine.DeleteEngine(last).unmounted


def test_owners_that_come_and_go_at_once_are_all_known(servers: Servers, engine: Stub) -> None:
    names = [f"engine-{number}" for number in range(8)]
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(engine.EnsureEngine, [ensure_engine(servers, name=name) for name in names]))
        assert all(f'"demo/{name}"' in description(servers) for name in names)
        answers = list(pool.map(engine.DeleteEngine, [delete_engine(servers, name=name) for name in names]))
    assert sum(answer.unmounted for answer in answers) == 1
    assert not mounted(servers)


def test_a_shared_connection_stays(servers: Servers, engine: Stub) -> None:
    engine.EnsureEngine(ensure_engine(servers))
    engine.EnsureEngine(ensure_engine(servers, name="second"))
    request = delete_engine(servers)
    request.connection_shared = True
    request.ClearField("quiesce_report")

    assert engine.DeleteEngine(request).remaining_owners == ["demo/second"]

    assert servers.vault("GET", CONFIG)[0] == 200


def test_deleting_waits_for_leases(servers: Servers, engine: Stub) -> None:
    engine.EnsureEngine(ensure_engine(servers))
    request = delete_engine(servers)
    for quiesce_report, remaining in (
        (None, "unknown"),
        (quiet(servers, remaining=3), "3"),
        (quiet(servers, age_s=60), "unknown"),
        (quiet(servers, "team-a"), "unknown"),
        (quiet(servers, MOUNT, "k8s.-.demo.postgres-app"), "unknown"),  # one connection says nothing about the mount
    ):
        request.ClearField("quiesce_report")
        if quiesce_report:
            request.quiesce_report.CopyFrom(quiesce_report)
        with pytest.raises(LeasesInUseError) as waits:
            engine.DeleteEngine(request)
        assert waits.value.metadata["open_attempts"] == remaining
    assert mounted(servers)


def test_another_database_waits_for_leases(servers: Servers, engine: Stub) -> None:
    servers.psql("DROP DATABASE IF EXISTS other")
    servers.psql("CREATE DATABASE other")
    request = ensure_engine(servers)
    here = engine.EnsureEngine(request).database
    request.postgres.database.service.path = "other"
    with pytest.raises(LeasesInUseError, match="host, port or database"):
        engine.EnsureEngine(request)
    request.quiesce_report.CopyFrom(quiet(servers, MOUNT, "k8s.-.demo.postgres-app", remaining=1))
    with pytest.raises(LeasesInUseError, match="1 leases"):
        engine.EnsureEngine(request)
    assert "/postgres?" in str(shown(servers)["connection_url"])

    request.quiesce_report.open_attempts = 0
    assert engine.EnsureEngine(request).changed
    assert "/other?" in str(shown(servers)["connection_url"])
    request.ClearField("quiesce_report")
    request.postgres.database.service.path = "postgres"
    for word in ("true", here.replace("postgres", "other"), f"x{here}", ""):  # F12: it names the very place
        request.same_database_moved = word
        with pytest.raises(LeasesInUseError):
            engine.EnsureEngine(request)
    request.same_database_moved = here
    engine.EnsureEngine(request)
    assert "/postgres?" in str(shown(servers)["connection_url"])


def test_query_and_limits_change_under_leases(servers: Servers, engine: Stub) -> None:
    request = ensure_engine(servers)
    engine.EnsureEngine(request)
    request.postgres.database.service.query = "sslmode=prefer"
    request.postgres.database.service.scheme = "Postgres"
    request.postgres.max_open_connections = 3

    assert engine.EnsureEngine(request).changed

    assert str(shown(servers)["connection_url"]).startswith("postgres://")


def test_a_user_that_only_vault_knows_is_left_alone(servers: Servers, engine: Stub) -> None:
    request = ensure_engine(servers)
    request.postgres.database.username = request.postgres.database.password = ""
    with pytest.raises(SpecInvalidError) as invalid:
        engine.EnsureEngine(request)
    assert invalid.value.violations[0].field == "postgres.database.username"
    assert not mounted(servers)

    engine.EnsureEngine(ensure_engine(servers))
    request.postgres.max_open_connections = 2
    request.postgres.database.service.query = "sslmode=disable&connect_timeout=9"
    engine.EnsureEngine(request)
    assert shown(servers)["username"] == "postgres"


ELSEWHERE: list[Callable[[pb.EnsureEngineRequest], None]] = [
    lambda request: setattr(request.postgres.database.service, "host", "rogue.example.com"),
    lambda request: setattr(request.postgres.database.service, "port", 1),
    lambda request: setattr(request.postgres.database.service, "path", "template1"),
    lambda request: setattr(request.postgres.database, "url", "postgresql://rogue.example.com/postgres"),
    lambda request: setattr(request.postgres.database.service, "query", "sslmode=disable"),
]


@pytest.mark.parametrize("change", ELSEWHERE, ids=["host", "port", "database", "url", "sslmode"])
@pytest.mark.parametrize("known", ["nothing", "username"])
def test_a_password_that_only_vault_knows_goes_nowhere_else(
    servers: Servers, engine: Stub, change: Callable[[pb.EnsureEngineRequest], None], known: str
) -> None:
    """H8: a rogue server would be sent the password, in clear text if it asks for that."""
    request = ensure_engine(servers)
    engine.EnsureEngine(request)
    stored = str(shown(servers)["connection_url"]).replace("sslmode=disable", "sslmode=require")
    servers.must("POST", CONFIG, connection_url=stored, plugin_name=PLUGIN, verify_connection=False)
    request.postgres.database.service.query = "sslmode=require"
    request.postgres.database.password = ""
    if known == "nothing":
        request.postgres.database.username = ""
    change(request)
    request.same_database_moved = "rogue.example.com:5432/postgres"  # no word gives the password away
    with pytest.raises(SpecInvalidError) as invalid:
        engine.EnsureEngine(request)
    assert [each.field for each in invalid.value.violations] == ["postgres.database.password"]
    assert "the AppBinding's Secret" in invalid.value.message
    assert shown(servers)["connection_url"] == stored


def test_a_mount_that_the_operator_does_not_permit(servers: Servers, engine: Stub) -> None:
    with pytest.raises(VaultPolicyMissingError, match="The operator does not permit this mount"):
        engine.EnsureEngine(ensure_engine(servers, "somewhere-else"))
    assert not mounted(servers, "somewhere-else")


def test_slashes_at_the_ends_are_dropped(servers: Servers, engine: Stub) -> None:
    assert engine.EnsureEngine(ensure_engine(servers, f"/{MOUNT}/")).mount == MOUNT
    assert engine.EnsureEngine(ensure_engine(servers, "")).mount == "database"


@pytest.mark.parametrize("policy", ["leasegate-engine", "leasegate-roles", "homemade", "root", "unreadable"])
def test_a_session_with_policies_proves_nothing(servers: Servers, engine: Stub, policy: str) -> None:
    """C1, F9: what a team authenticates by has no right in Vault, else it is refused and nothing is written."""
    request = ensure_engine(servers)
    makes = {"root": lambda: servers.root_token, "unreadable": lambda: servers.token_with("default")}
    request.target.token.token = makes.get(policy, lambda: servers.team_token(policy))()
    with pytest.raises(TeamLoginHasPoliciesError, match=r"demo/vault") as refused:
        engine.EnsureEngine(request)
    assert refused.value.changed_nothing
    assert not mounted(servers)


@pytest.mark.parametrize(
    ("team", "says"),
    [
        ({"methods": ["kubernetes"]}, "the auth method token, and the operator allows these at Vault main: kubernetes"),
        ({"methods": ["userpass"], "mounts": ["kubernetes"]}, "the auth mount userpass"),
    ],
)
def test_a_method_that_is_not_for_teams_is_refused_unsent(servers: Servers, team: dict[str, Any], says: str) -> None:
    """H4: also by the engine service, whatever the watcher sends; Vault is not asked."""
    request = ensure_engine(servers)
    if "userpass" in says:
        request.target.userpass.username, request.target.userpass.password = "f9", "a-long-password"
    with (
        engine_service(servers, teamAuth={"tokenAudience": "leasegate-vault"} | team) as strict,
        pytest.raises(SpecInvalidError, match=says),
    ):
        strict.EnsureEngine(request)
    assert not mounted(servers)


@pytest.mark.parametrize("by", ["group", "entity"])
def test_policies_of_an_identity_count_too(servers: Servers, engine: Stub, by: str) -> None:
    """F9: an auth role without policies is not enough, as identity groups and entities add policies."""
    request = ensure_engine(servers)
    servers.vault("POST", "sys/auth/userpass", type="userpass")
    servers.must("POST", "auth/userpass/users/f9", password="a-long-password", token_no_default_policy=True)
    request.target.userpass.username, request.target.userpass.password = "f9", "a-long-password"
    engine.EnsureEngine(request)
    servers.must("DELETE", f"sys/mounts/{MOUNT}")
    opened = servers.must("POST", "auth/userpass/login/f9", password="a-long-password")["auth"]
    policies = ["leasegate-engine"]
    if by == "group":
        made = f"group/id/{_group(servers, opened['entity_id'], policies)}"
    else:
        made = f"entity/id/{opened['entity_id']}"
        servers.must("POST", f"identity/{made}", policies=policies)
    try:
        with pytest.raises(TeamLoginHasPoliciesError, match="leasegate-engine"):
            engine.EnsureEngine(request)
        assert not mounted(servers)
    finally:
        servers.must("DELETE", f"identity/{made}")
        servers.must("DELETE", "sys/auth/userpass")


def _group(servers: Servers, entity: str, policies: list[str]) -> str:
    made = servers.must("POST", "identity/group", name="f9", policies=policies, member_entity_ids=[entity])
    return str(made["data"]["id"])


def test_the_answer_is_a_proof_and_nothing_is_done_with_it(servers: Servers, engine: Stub) -> None:
    """C1, F8: it is neither kept nor renewed nor revoked; without it the engine service writes nothing."""
    token = servers.team_token()
    request = ensure_engine(servers)
    request.target.token.token = token
    engine.EnsureEngine(request)
    servers.must("POST", "auth/token/revoke-self", token)
    with pytest.raises(VaultAuthRefusedError, match="demo/vault"):
        engine.EnsureEngine(request)
    request.target.CopyFrom(target(servers, auth=False))
    with pytest.raises(VaultAuthMissingError, match="nothing proves that demo/vault may use this Vault"):
        engine.EnsureEngine(request)


def test_deleting_needs_no_proof(servers: Servers, engine: Stub) -> None:
    """In a namespace that is being deleted Kubernetes makes no token any more."""
    engine.EnsureEngine(ensure_engine(servers))
    request = delete_engine(servers)
    request.target.CopyFrom(target(servers, auth=False))
    assert engine.DeleteEngine(request).unmounted


def test_a_vault_without_a_session_of_the_service_is_told(servers: Servers) -> None:
    """C1: the team's session is not used in its place; the error says what to configure."""
    with closing(Sessions(SCOPE, vaults=vaults(entry_of(servers)))) as sessions, engine_service_with(sessions) as bare:
        request = ensure_engine(servers)
        request.target.token.token = servers.root_token
        for call in (lambda: bare.EnsureEngine(request), lambda: bare.DeleteEngine(delete_engine(servers))):
            with pytest.raises(VaultAuthMissingError, match=r"no session of its own at .*--vault-config"):
                call()
    assert not mounted(servers)


def test_each_write_to_vault_is_one_line_of_the_log(
    servers: Servers, engine: Stub, capsys: pytest.CaptureFixture[str]
) -> None:
    """It names the object, the path and an id by which Vault's audit log finds the request; and no secret."""
    configure(process="engine")
    engine.EnsureEngine(ensure_engine(servers))
    engine.DeleteEngine(delete_engine(servers))
    lines = [json.loads(line) for line in capsys.readouterr().err.splitlines() if '"vault write"' in line]
    assert [(line["operation"], line["path"], line["object"]) for line in lines] == [
        ("POST", f"sys/mounts/{MOUNT}", "demo/postgresql-engine"),
        ("POST", CONFIG, "demo/postgresql-engine"),
        ("DELETE", f"sys/mounts/{MOUNT}", "demo/postgresql-engine"),
    ]
    assert len({line["correlation_id"] for line in lines}) == 3
    assert "root" not in json.dumps([{**line, "timestamp": ""} for line in lines])


def test_a_refused_session_leaves_no_secret_and_no_half_made_engine(servers: Servers, engine: Stub) -> None:
    request = ensure_engine(servers)
    request.target.token.token = "s.notatokenofthisvault00"
    with pytest.raises(VaultAuthRefusedError) as refused:
        engine.EnsureEngine(request)
    assert "demo/vault" in refused.value.message
    assert "notatoken" not in refused.value.message
    assert not mounted(servers)


def test_a_sealed_vault_and_one_that_is_not_there(servers: Servers, engine: Stub) -> None:
    request = ensure_engine(servers)
    servers.bao.seal()
    try:
        with pytest.raises(VaultSealedError) as sealed:
            engine.EnsureEngine(request)
        assert sealed.value.retry_after_s is not None
    finally:
        servers.bao.unseal()
    engine.EnsureEngine(request)
    request.target.address = nowhere = "https://127.0.0.1:1"
    with own_auth_file(servers, "leasegate-engine") as file:
        file.write_text(file.read_text().replace(servers.vault_addr, nowhere))
        with (
            closing(Sessions(SCOPE, vaults=vaults_of(file))) as sessions,
            engine_service_with(sessions) as lost,
            pytest.raises(VaultUnavailableError, match="cannot be connected to"),
        ):
            lost.EnsureEngine(request)


def test_a_mount_with_leases_at_a_dead_database_says_why_it_stays(servers: Servers, engine: Stub) -> None:
    engine.EnsureEngine(ensure_engine(servers))
    name = "k8s.-.demo.postgres-app"
    servers.must(
        "POST", f"{MOUNT}/roles/k8s.-.demo.probe", db_name=name, creation_statements=['CREATE ROLE "{{name}}"']
    )
    servers.must("GET", f"{MOUNT}/creds/k8s.-.demo.probe")
    url = "postgresql://{{username}}:{{password}}@127.0.0.1:1/postgres?sslmode=disable"
    servers.must("POST", CONFIG, connection_url=url, verify_connection=False)

    with pytest.raises(VaultFailedError) as failed:
        engine.DeleteEngine(delete_engine(servers))

    assert f"could not disable the mount {MOUNT}" in failed.value.message
    assert "connection refused" in failed.value.message
    with pytest.raises(VaultFailedError, match="being removed"):
        engine.EnsureEngine(ensure_engine(servers))
    servers.must("POST", f"sys/leases/revoke-force/{MOUNT}")
    assert engine.DeleteEngine(delete_engine(servers)).unmounted


def test_a_plugin_that_vault_does_not_have(servers: Servers, engine: Stub) -> None:
    request = ensure_engine(servers)
    request.postgres.plugin_name = "no-such-plugin"
    with pytest.raises(VaultRefusedError, match="no-such-plugin"):
        engine.EnsureEngine(request)


def test_a_whole_url_in_place_of_a_service(servers: Servers, engine: Stub) -> None:
    request = ensure_engine(servers)
    request.postgres.CopyFrom(connection(servers))
    request.postgres.database.url = (
        f"postgresql://localhost:{servers.postgres_port}/postgres?application_name=a%20b&sslmode=disable"
    )
    engine.EnsureEngine(request)
    assert str(shown(servers)["connection_url"]).endswith(
        f"@localhost:{servers.postgres_port}/postgres?application_name=a%20b&sslmode=disable&lock_timeout=3000"
    )


def test_a_lock_timeout_that_somebody_took_away_is_written_again(servers: Servers, engine: Stub) -> None:
    engine.EnsureEngine(ensure_engine(servers))
    written = str(shown(servers)["connection_url"])
    servers.must("POST", CONFIG, connection_url=written.replace("&lock_timeout=3000", ""), verify_connection=False)

    assert engine.EnsureEngine(ensure_engine(servers)).changed
    assert shown(servers)["connection_url"] == written


def test_a_team_cannot_have_waits_for_locks_without_an_end(servers: Servers, engine: Stub) -> None:
    request = ensure_engine(servers)
    request.postgres.database.service.query = "sslmode=disable&lock_timeout=0"
    with pytest.raises(SpecInvalidError) as invalid:
        engine.EnsureEngine(request)
    assert [each.field for each in invalid.value.violations] == ["postgres.database.service.query"]


@pytest.mark.parametrize(
    "break_it",
    [
        lambda servers: servers.must(
            "POST", CONFIG, connection_url="postgresql://{{username}}:{{password}}@other:1/x", verify_connection=False
        ),
        lambda servers: servers.must("POST", CONFIG, username="root", verify_connection=False),
        lambda servers: servers.must("DELETE", CONFIG),
    ],
    ids=["led elsewhere", "another user", "removed"],
)
def test_no_connection_is_led_elsewhere_before_its_roles_are_paused(
    servers: Servers, engine: Stub, break_it: Callable[[Servers], object]
) -> None:
    """H1: nor is drift put back; an operator's move, which needs no quiesce report, needs this one."""
    request = ensure_engine(servers)
    engine.EnsureEngine(request)
    request.ClearField("pause_report")
    request.postgres.max_open_connections = 7
    assert engine.EnsureEngine(request).changed  # what no approval covers needs no report
    before = shown(servers)
    break_it(servers)
    request.last_database = f"{servers.postgres_host}:{servers.postgres_port}/postgres"
    request.same_database_moved = request.last_database
    name = request.postgres.name
    for report in (
        None,
        paused(servers, connection="k8s.-.demo.other"),
        paused(servers, vault_role="k8s.-.demo.psql-role"),
        paused(servers, connection=name, under_way=1),
    ):
        request.ClearField("pause_report")
        if report:
            request.pause_report.CopyFrom(report)
        with pytest.raises(ChangeDueError, match="once") as due:
            engine.EnsureEngine(request)
        assert due.value.changed_nothing
    request.pause_report.CopyFrom(paused(servers, connection=name))
    assert engine.EnsureEngine(request).changed
    assert shown(servers) == before
