"""Indexes of the caches: which objects use an AppBinding, a mount, a db_role or a Secret, whatever is wrong in them."""

from __future__ import annotations

from typing import Any

import pytest

from watcher.kube.cache import Cache
from watcher.kube.resources import Body, Key, Resource
from watcher.specs.indexes import (
    BY_APP_BINDING,
    BY_DB_ROLE,
    BY_MOUNT,
    BY_RECORDED_MOUNT,
    BY_SECRET,
    BY_VAULT,
    INDEXERS,
    used_app_bindings,
)
from watcher.specs.kinds import ACCESS_REQUEST, APP_BINDING, POSTGRES_ROLE, SECRET_ENGINE

META = {"namespace": "demo", "name": "thing", "uid": "u"}
ENGINE: Body = {
    "metadata": META,
    "spec": {
        "vaultRef": {"name": "vault"},
        "path": "/team-a/",
        "postgres": {"databaseRef": {"name": "app", "namespace": "db"}},
    },
    "status": {"target": {"namespace": "demo", "name": "former", "address": "https://v:1"}, "path": "team-b"},
}


def found(resource: Resource, obj: Body, index: str, value: Any) -> bool:
    cache = Cache(indexers=INDEXERS[resource])
    cache.put(obj)
    return bool(cache.by_index(index, value))


def test_an_engine_is_found_by_each_app_binding_that_it_uses() -> None:
    assert used_app_bindings(ENGINE) == {Key("demo", "vault"), Key("db", "app"), Key("demo", "former")}
    for key in used_app_bindings(ENGINE):
        assert found(SECRET_ENGINE, ENGINE, BY_APP_BINDING, key)
    assert found(SECRET_ENGINE, ENGINE, BY_VAULT, Key("demo", "vault"))
    assert not found(SECRET_ENGINE, ENGINE, BY_VAULT, Key("db", "app"))


def test_an_engine_is_found_by_its_mounts() -> None:
    assert found(SECRET_ENGINE, ENGINE, BY_MOUNT, "team-a")
    assert found(SECRET_ENGINE, ENGINE, BY_RECORDED_MOUNT, "team-b")
    assert not found(SECRET_ENGINE, ENGINE, BY_RECORDED_MOUNT, "team-a")
    assert found(SECRET_ENGINE, {"metadata": META, "spec": {}}, BY_MOUNT, "database")


def test_a_role_is_found_by_the_app_bindings_that_it_uses() -> None:
    role = {"metadata": META, "spec": {"vaultRef": {"name": "vault"}, "databaseRef": {"name": "app"}}}
    assert used_app_bindings(role) == {Key("demo", "vault"), Key("demo", "app")}
    assert found(POSTGRES_ROLE, role, BY_APP_BINDING, Key("demo", "app"))
    named = {"metadata": META, "spec": {"vaultRef": {"name": "vault"}, "databaseName": "k8s.-.db.my.app"}}
    assert used_app_bindings(named) == {Key("demo", "vault"), Key("db", "my.app")}
    for name in ("by-hand", "k8s", "k8s.-.db", "k8s.-.db.", "k8s.-..app", "K8s.-.db.app"):
        assert used_app_bindings({"metadata": META, "spec": {"databaseName": name}}) == set()


def test_a_request_is_found_by_its_db_role() -> None:
    request: Body = {"metadata": META, "spec": {"roleRef": {"kind": "PostgresRole", "name": "r"}}}
    assert found(ACCESS_REQUEST, request, BY_DB_ROLE, Key("demo", "r"))
    request["spec"]["roleRef"]["namespace"] = "other"
    assert found(ACCESS_REQUEST, request, BY_DB_ROLE, Key("other", "r"))


def test_an_app_binding_is_found_by_its_secrets() -> None:
    binding = {
        "metadata": META,
        "spec": {"secret": {"name": "own"}, "secretTransforms": [{"addKeysFrom": {"name": "more"}}]},
    }
    for name in ("own", "more"):
        assert found(APP_BINDING, binding, BY_SECRET, Key("demo", name))


@pytest.mark.parametrize("spec", [None, [], "x", 7, {"vaultRef": 7, "path": {}, "postgres": [], "roleRef": "x"}])
@pytest.mark.parametrize("status", [None, [], {"target": "x", "path": 7}])
@pytest.mark.parametrize("resource", list(INDEXERS), ids=lambda resource: resource.kind)
def test_an_odd_object_is_indexed_without_an_error(resource: Resource, spec: object, status: object) -> None:
    cache = Cache(indexers=INDEXERS[resource])
    cache.put({"metadata": META, "spec": spec, "status": status})
    cache.put({"metadata": META | {"resourceVersion": "2"}, "spec": {}, "status": {}})
    assert len(cache) == 1
