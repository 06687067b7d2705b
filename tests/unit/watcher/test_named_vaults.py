"""Vaults that the operator names: what chooses one, what is refused before anything is made, and what moves nothing."""

from __future__ import annotations

from typing import Any

import pytest

from leasegate.access.v1 import watcher_service_pb2
from leasegate.engine.v1 import engine_service_pb2
from leasegate.roles.v1 import role_service_pb2
from tests.unit.watcher.watcher_world import MOUNT, OTHER_VAULT, VAULT, World
from tests.vaults import ANY_VAULT, config, entry
from watcher.kube.resources import SERVICE_ACCOUNT, Body
from watcher.specs.kinds import ACCESS_REQUEST, APP_BINDING, POSTGRES_ROLE, SECRET_ENGINE

ENGINE, ROLE, REQUEST = "postgresql-engine", "psql-role", "rqst"
CHANGES = (
    engine_service_pb2.DeleteEngineRequest,
    role_service_pb2.DeleteDbRoleRequest,
    watcher_service_pb2.QuiesceRequest,
    watcher_service_pb2.DeleteDbRoleSnapshotRequest,
    watcher_service_pb2.DeleteAccessRequestRequest,
)
MAIN = (VAULT, "https://vault.*.svc:8200")


@pytest.fixture
def world() -> World:
    return World()


@pytest.fixture
def granted(world: World) -> World:
    """The guide's objects, with a credential in use."""
    world.guide()
    world.decide()
    world.settle()
    assert world.secret()
    world.access.remaining = 1
    return world


def point_at(world: World, url: str, **parameters: Any) -> None:
    """Have the guide's AppBinding name a Vault by another address."""

    def change(binding: Body) -> None:
        binding["spec"]["clientConfig"] = {"url": url}
        binding["spec"]["parameters"].update(parameters)

    world.kube.edit(APP_BINDING, "demo/vault", change)


def restart(world: World, *entries: dict[str, Any]) -> None:
    """Start the watcher again, with another file."""
    world.vaults = config(*entries)
    world.start()
    world.settle()
    world.advance(3, step_s=1)


def ended(world: World) -> list[str]:
    """What was removed, moved or revoked."""
    found = [*world.engine.calls, *world.roles.calls, *world.access.calls]
    return [type(call).__name__ for call in found if isinstance(call, CHANGES)]


def read(world: World) -> list[str]:
    """Tokens that were made, and Secrets that were read."""
    return [call for call in world.kube.calls if "/token" in call or call.startswith(("GET secrets", "POST service"))]


def told(world: World) -> int:
    """Calls to a service."""
    return len([*world.engine.calls, *world.roles.calls, *world.access.calls])


def waiting(world: World, kind: Any, name: str) -> str:
    """Why an object is not ready: reason and message."""
    condition = world.condition(kind, name, "Ready")
    assert condition["status"] == "False", condition
    return f"{condition['reason']}: {condition['message']}"


# -- what an address chooses


def test_an_address_only_chooses_the_entry(granted: World) -> None:
    request = granted.engine.asked(engine_service_pb2.EnsureEngineRequest)[-1]
    assert (request.target.vault, request.target.address, request.target.ca_bundle) == ("main", VAULT, b"")
    target = granted.status(SECRET_ENGINE, ENGINE)["target"]
    assert (target["vault"], target["address"]) == ("main", VAULT)


def test_settings_without_effect_are_a_condition(world: World) -> None:
    world.guide()
    assert not world.condition(SECRET_ENGINE, ENGINE, "VaultSettingsNotUsed")

    def change(binding: Body) -> None:
        binding["spec"]["clientConfig"] |= {"insecureSkipTLSVerify": True, "serverName": "elsewhere"}

    world.kube.edit(APP_BINDING, "demo/vault", change)
    world.settle()
    for kind, name in ((SECRET_ENGINE, ENGINE), (POSTGRES_ROLE, ROLE)):
        message = world.condition(kind, name, "VaultSettingsNotUsed")["message"]
        assert "insecureSkipTLSVerify, serverName of AppBinding demo/vault has no effect" in message
        assert world.status(kind, name)["phase"] == "Success"
    target = world.engine.asked(engine_service_pb2.EnsureEngineRequest)[-1].target
    assert (target.insecure_skip_tls_verify, target.server_name) == (False, "")


@pytest.mark.parametrize("url", ["http://127.0.0.1:18200", "https://evil.example.com:8200", "https://vault.demo.svc:1"])
def test_c2_m8_an_unknown_address_is_refused_before_all(world: World, url: str) -> None:
    world.vault()
    point_at(world, url)
    world.database()
    world.secret_engine()
    world.role()
    world.settle()
    assert waiting(world, SECRET_ENGINE, ENGINE).startswith("VaultNotAllowed: Vault http")
    assert "have the operator add this one" in waiting(world, SECRET_ENGINE, ENGINE)
    assert "VaultNotAllowed" in waiting(world, POSTGRES_ROLE, ROLE)
    assert "VaultNotAllowed" in waiting(world, APP_BINDING, "vault")
    assert [call for call in read(world) if "postgres" not in call] == []
    assert told(world) == 0


def test_report_20_a_vault_namespace_of_no_entry_is_refused(world: World) -> None:
    world.vaults = config(entry(*MAIN), entry(*MAIN, name="team", vaultNamespace="org/team"))
    world.start()
    world.vault()
    world.database()
    world.secret_engine()
    world.settle()
    assert "several entries of --vault-config (main, team)" in waiting(world, SECRET_ENGINE, ENGINE)
    point_at(world, "https://vault.demo.svc:8200", namespace="org/other")
    world.settle()
    assert "not for the Vault namespace 'org/other'" in waiting(world, SECRET_ENGINE, ENGINE)
    assert told(world) == 0
    point_at(world, "https://vault.demo.svc:8200", namespace="", vault="team")
    world.settle()
    target = world.engine.asked(engine_service_pb2.EnsureEngineRequest)[-1].target
    assert (target.vault, target.vault_namespace) == ("team", "org/team")


def test_m7_another_namespaces_path_is_refused_before_all(world: World) -> None:
    world.vaults = config(entry(*MAIN, mounts={"owned": [{"path": "team/{namespace}"}]}))
    world.start()
    world.vault()
    world.database()
    world.secret_engine(path="team/other")
    world.settle()
    assert waiting(world, SECRET_ENGINE, ENGINE).startswith("PathNotOwned: the mount team/other of Vault main is not")
    assert "such as team/demo" in waiting(world, SECRET_ENGINE, ENGINE)
    assert world.engine.calls == []
    world.kube.edit(SECRET_ENGINE, f"demo/{ENGINE}", lambda o: o["spec"].update(path="team/demo"))
    world.settle()
    assert world.status(SECRET_ENGINE, ENGINE)["phase"] == "Success"


# -- what moves nothing


@pytest.mark.parametrize(
    ("entries", "url"),
    [
        ([entry(*MAIN)], "HTTPS://Vault.other.svc.:8200/"),
        ([entry(*MAIN, "https://added")], "https://added:443"),
        ([entry("https://moved:8200", "https://vault.demo.svc:8200")], "https://vault.demo.svc:8200"),
        ([entry("https://moved:8201", "http://vault.demo.svc:8200")], "http://vault.demo.svc:8200"),
        ([entry(*MAIN, name="new", formerNames=["main"])], "https://vault.demo.svc:8200"),
        ([entry("https://moved", name="newest", formerNames=["main", "new"])], "https://moved"),
    ],
    ids=["respelled", "added", "moved", "scheme", "renamed", "renamed and moved"],
)
def test_m7_report_4_the_same_vault_moves_and_ends_nothing(granted: World, entries: Any, url: str) -> None:
    secret = granted.secret()
    point_at(granted, url)
    restart(granted, *entries)
    assert ended(granted) == []
    assert granted.secret() == secret
    for kind, name in ((SECRET_ENGINE, ENGINE), (POSTGRES_ROLE, ROLE)):
        assert granted.status(kind, name)["phase"] == "Success"
        assert granted.status(kind, name)["target"]["vault"] == "main"
    last = granted.engine.asked(engine_service_pb2.EnsureEngineRequest)[-1]
    assert last.target.address == config(*entries).entries[0].address


@pytest.mark.parametrize(
    "entries",
    [[entry("https://gone:1", name="new")], [entry(*MAIN, name="new")]],
    ids=["removed", "renamed without formerNames"],
)
def test_m7_a_vault_that_no_entry_names_ends_nothing(granted: World, entries: Any) -> None:
    secret, before = granted.secret(), len(granted.engine.calls) + len(granted.roles.calls)
    restart(granted, *entries)
    granted.advance(600, step_s=10)
    assert ended(granted) == []
    assert granted.secret() == secret
    assert len(granted.engine.calls) + len(granted.roles.calls) == before
    for kind, name in ((SECRET_ENGINE, ENGINE), (POSTGRES_ROLE, ROLE)):
        assert "VaultNotAllowed" in waiting(granted, kind, name)
    restart(granted, entry(*MAIN, name="new", formerNames=["main"]))
    granted.advance(70, step_s=5)
    assert granted.status(SECRET_ENGINE, ENGINE)["phase"] == "Success"
    assert ended(granted) == []


def test_names_given_late_are_the_same_vault(granted: World) -> None:
    """An object that was made between a rename and formerNames has the new name in its status."""
    restart(granted, entry(*MAIN, name="new"))
    granted.secret_engine("second", path="team-a")
    granted.settle()
    assert granted.status(SECRET_ENGINE, "second")["target"]["vault"] == "new"
    restart(granted, entry(*MAIN, name="new", formerNames=["main"]))
    granted.advance(70, step_s=5)
    for name in (ENGINE, "second"):
        assert granted.status(SECRET_ENGINE, name)["target"]["vault"] == "main"
    assert ended(granted) == []


# -- deletions


def test_a_deletion_goes_on_by_the_last_known_address(granted: World) -> None:
    granted.access.remaining = 0
    restart(granted, entry(*MAIN, name="new"))
    granted.secret_engine("second", path=MOUNT)
    granted.settle()
    granted.delete(SECRET_ENGINE, ENGINE)
    granted.settle()
    asked = granted.access.asked(watcher_service_pb2.QuiesceRequest)
    assert [(each.target.vault, each.target.address) for each in asked] == []  # the connection is the second's, too
    (request,) = granted.engine.asked(engine_service_pb2.DeleteEngineRequest)
    assert (request.target.vault, request.target.address, request.connection_shared) == ("new", VAULT, True)


def test_a_deletion_sends_nothing_to_an_address_of_no_entry(granted: World) -> None:
    granted.access.remaining = 0
    restart(granted, entry(OTHER_VAULT, name="other"))
    granted.delete(SECRET_ENGINE, ENGINE)
    granted.advance(100, step_s=2)
    assert ended(granted) == []
    assert "nothing is sent there. Put its entry back" in waiting(granted, SECRET_ENGINE, ENGINE)
    granted.advance(60, step_s=2)
    assert granted.kube.see(SECRET_ENGINE, f"demo/{ENGINE}") is None  # bounded, and said
    assert any("VaultCleanupSkipped" in event for event in granted.kube.events(ENGINE))
    assert ended(granted) == []


# -- every Vault


@pytest.fixture
def anywhere() -> World:
    made = World()
    made.vaults = ANY_VAULT
    made.start()
    return made


def test_with_any_vault_every_object_says_that_approval_is_not_enforced(anywhere: World) -> None:
    anywhere.guide()
    for kind, name in ((SECRET_ENGINE, ENGINE), (POSTGRES_ROLE, ROLE)):
        assert anywhere.status(kind, name)["phase"] == "Success"
        assert "--vault-config" in anywhere.condition(kind, name, "ApprovalNotEnforced")["message"]
    assert anywhere.status(ACCESS_REQUEST, REQUEST)
    target = anywhere.engine.asked(engine_service_pb2.EnsureEngineRequest)[-1].target
    assert (target.vault, target.address) == ("", "https://vault.demo.svc:8200")


def test_c2_with_any_vault_no_foreign_secret_is_read(anywhere: World) -> None:
    anywhere.database()
    anywhere.put(SERVICE_ACCOUNT, "vault", "evil")
    parameters = {"vaultRole": "r", "serviceAccountName": "vault"}
    binding = {"clientConfig": {"url": "http://127.0.0.1:18200"}, "parameters": parameters}
    anywhere.put(APP_BINDING, "mine", "evil", spec=binding)
    refs = {"vaultRef": {"name": "mine"}, "postgres": {"databaseRef": {"name": "postgres-app", "namespace": "demo"}}}
    anywhere.put(SECRET_ENGINE, "mine", "evil", spec=refs)
    anywhere.settle()
    condition = next(c for c in anywhere.status(SECRET_ENGINE, "mine", "evil")["conditions"] if c["type"] == "Ready")
    assert (condition["status"], condition["reason"]) == ("False", "VaultNotAllowed")
    assert "AppBinding demo/postgres-app is of another namespace" in condition["message"]
    assert [call for call in read(anywhere) if "demo" in call] == []
    assert anywhere.engine.calls == []


def test_the_status_says_which_vault_answers_and_nothing_follows(granted: World) -> None:
    """Another id is shown: nothing moves, ends or is issued again, and no approval is asked for."""
    assert "vault" not in granted.status(SECRET_ENGINE, "postgresql-engine")
    digest, secret = granted.status(ACCESS_REQUEST, "rqst")["digest"], granted.secret()
    for cluster_id in ("one", "two"):
        granted.engine.server = engine_service_pb2.VaultServer(cluster_id=cluster_id, version="2.7.2")
        for _ in granted.watcher.triggers.resync(1):
            pass
        granted.settle()
        assert granted.status(SECRET_ENGINE, "postgresql-engine")["vault"] == {
            "name": "main",
            "clusterID": cluster_id,
            "version": "2.7.2",
        }
    assert (granted.status(ACCESS_REQUEST, "rqst")["digest"], granted.secret()) == (digest, secret)
    assert ended(granted) == []
