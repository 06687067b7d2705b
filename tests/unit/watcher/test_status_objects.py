"""Status objects: what is written is read back, and whatever else stands in a status reads as absent."""

from __future__ import annotations

import datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from leasegate.types.v1 import types_pb2
from watcher.kube.conditions import merged
from watcher.kube.resources import Body
from watcher.specs.status import EngineStatus, LeaseStatus, RequestStatus, RoleStatus, TargetStatus

NOW = datetime.datetime(2026, 1, 1, tzinfo=datetime.UTC)
TARGET: Body = {
    "namespace": "demo",
    "name": "vault",
    "digest": "0123456789abcdef",
    "address": "https://vault.demo.svc:8200",
    "vault": "main",
    "answered": True,
}
ENGINE: Body = {
    "phase": "Success",
    "observedGeneration": 3,
    "target": TARGET,
    "path": "my-postgres-se",
    "connection": "k8s.-.demo.postgres-app",
    "database": "postgres.demo.svc:5432/postgres",
    "mount": {"ownership": "Owned"},
    "vault": {"name": "main", "clusterID": "4cf5c7fc-555d-ee52-0c14-c523784f308c", "version": "2.7.2"},
}
ROLE: Body = {
    "phase": "Success",
    "observedGeneration": 3,
    "target": TARGET,
    "path": "my-postgres-se",
    "connection": "k8s.-.demo.postgres-app",
    "role": "k8s.-.demo.psql-role",
    "digest": "abc",
}
REQUEST: Body = {
    "phase": "Approved",
    "observedGeneration": 1,
    "digest": "abc",
    "lease": {"id": "m/creds/r/x", "duration": "1h0m0s", "renewable": True, "expireTime": "2033-05-18T03:33:20Z"},
    "secret": {"name": "rqst-abcdef"},
    "attempt": 7,
}
KINDS: list[tuple[type[Any], Body]] = [(EngineStatus, ENGINE), (RoleStatus, ROLE), (RequestStatus, REQUEST)]
WORDS = st.text(max_size=8)
TARGETS = st.builds(
    TargetStatus, st.text(min_size=1, max_size=8), WORDS, WORDS, WORDS, WORDS, WORDS, WORDS, st.booleans()
)
PLACED = {
    "phase": WORDS,
    "observed_generation": st.integers(0, 9),
    "target": st.none() | TARGETS,
    "path": WORDS,
    "connection": WORDS,
}
LEASES = st.builds(LeaseStatus, st.text(min_size=1, max_size=8), WORDS, st.booleans(), WORDS)
STATUSES = st.one_of(
    st.builds(EngineStatus, **PLACED, database=WORDS, ownership=WORDS, cluster_id=WORDS, version=WORDS),
    st.builds(RoleStatus, **PLACED, db_role=WORDS, digest=WORDS),
    st.builds(
        RequestStatus,
        phase=WORDS,
        observed_generation=st.integers(0, 9),
        digest=WORDS,
        lease=st.none() | LEASES,
        secret=WORDS,
        attempt=st.integers(0, 2**62),
    ),
)
ODD = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | WORDS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(WORDS, inner, max_size=3),
    max_leaves=4,
)


def present(fields: Any) -> Body:
    return {name: value for name, value in fields.items() if value is not None}


@pytest.mark.parametrize(("kind", "status"), KINDS, ids=["engine", "role", "request"])
def test_a_status_is_read_and_written_whole(kind: type[Any], status: Body) -> None:
    assert present(kind.from_object({"status": status}).fields()) == status


@given(STATUSES)
def test_what_is_written_is_read_back(status: Any) -> None:
    assert type(status).from_object({"status": present(status.fields())}) == status


@pytest.mark.parametrize("obj", [{}, {"status": None}, {"status": []}, {"status": "x"}])
@pytest.mark.parametrize("kind", [EngineStatus, RoleStatus, RequestStatus])
def test_an_object_without_a_status_reads_as_absent(kind: type[Any], obj: Body) -> None:
    assert kind.from_object(obj) == kind()
    assert present(kind().fields()) == {}


@given(st.sampled_from(KINDS), st.data())
def test_a_malformed_value_reads_as_absent_and_never_raises(which: tuple[type[Any], Body], data: st.DataObject) -> None:
    kind, status = which
    name = data.draw(st.sampled_from(sorted(status)))
    odd = kind.from_object({"status": status | {name: data.draw(ODD)}})
    without = kind.from_object({"status": {key: value for key, value in status.items() if key != name}})
    whole = kind.from_object({"status": status})
    for each in kind.__dataclass_fields__:
        assert getattr(odd, each) == getattr(whole, each) or getattr(without, each) != getattr(whole, each), each


@pytest.mark.parametrize("target", [None, {}, [], "x", {"address": 7}, {"address": ""}, {"namespace": "demo"}])
def test_a_target_without_an_address_is_none(target: object) -> None:
    status = EngineStatus.from_object({"status": ENGINE | {"target": target}})
    assert (status.target, status.answered) == (None, False)


@pytest.mark.parametrize("attempt", [True, "7", 7.0, -1, 0, None, []])
def test_an_attempt_is_a_positive_whole_number_or_none(attempt: object) -> None:
    assert RequestStatus.from_object({"status": REQUEST | {"attempt": attempt}}).attempt == 0


def test_members_of_others_stay_when_a_status_is_written() -> None:
    fields = RequestStatus.from_object({"status": REQUEST}).without_credential().fields()
    found = merged(REQUEST | {"theirs": 1}, fields=fields, conditions=[], complete=False, now=NOW, generation=1)
    assert found == {"phase": "Approved", "observedGeneration": 1, "digest": "abc", "theirs": 1}


def test_the_same_vault_is_known_whatever_authenticates_there() -> None:
    target = types_pb2.VaultTarget(address="HTTPS://Vault.demo.svc.:8200/")
    known = TargetStatus.from_fields(TARGET | {"vault": ""})
    assert known is not None
    assert known.is_same_vault(target)
    assert not known.is_same_vault(types_pb2.VaultTarget(address=target.address, vault_namespace="team"))
    assert not known.is_same_vault(types_pb2.VaultTarget(address="https://vault.demo.svc:8201"))


def test_m7_a_named_vault_is_the_same_at_any_address() -> None:
    known = TargetStatus.from_fields(TARGET | {"vault": "main"})
    assert known is not None
    assert known.is_same_vault(types_pb2.VaultTarget(vault="main", address="https://elsewhere", vault_namespace="org"))
    assert not known.is_same_vault(types_pb2.VaultTarget(vault="other", address=TARGET["address"]))


def test_a_target_is_recorded_by_its_name_and_with_no_secret() -> None:
    target = types_pb2.VaultTarget(
        source=types_pb2.ObjectRef(namespace="demo", name="vault"),
        address="https://vault.demo.svc:8200",
        vault="main",
        kubernetes=types_pb2.KubernetesAuth(auth_role="r", jwt="hunter2"),
    )
    found = TargetStatus.of(target).fields()
    assert (found["namespace"], found["name"], found["vault"]) == ("demo", "vault", "main")
    assert "hunter2" not in str(found)
