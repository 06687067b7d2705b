"""Whose a mount is, and what proves that nothing depends on it."""

from __future__ import annotations

import pytest
from google.protobuf.duration_pb2 import Duration

from leasegate.types.v1 import types_pb2
from services.common.errors import LeasesInUseError
from services.common.vault.mounts import Marker, Mount
from services.common.vault.quiesce_report import QuiesceReport, require_quiesce_report
from services.common.vault.target import VaultTarget

TARGET = VaultTarget(name="vault", address="https://vault:8200")


@pytest.mark.parametrize(
    "marker",
    [
        Marker(cluster="-"),
        Marker(cluster="uid", owners=("demo/a", "demo/b")),
        Marker(cluster="uid", owners=("demo/a",), adopted=True),
        Marker(cluster="uid", owners=("demo/a", "ns-b/b"), namespace="demo", shared=("ns-b", "ns-c")),
        Marker(cluster="uid", owners=(), adopted=True, before="the DBAs' leasegate {no} mount,\nhands off"),
    ],
)
def test_a_marker_is_read_back(marker: Marker) -> None:
    assert Marker.parse(str(marker)) == marker


def test_how_it_stands_in_vault() -> None:
    marker = Marker(cluster="uid", namespace="demo").with_owners(["demo/b", "demo/a", "demo/b"])
    assert str(marker) == 'leasegate {"cluster":"uid","namespace":"demo","owners":["demo/a","demo/b"]}'
    found = Marker.parse('leasegate {"cluster": "-", "namespace": "demo", "owners": ["demo/postgresql-engine"]}')
    assert found == Marker("-", ("demo/postgresql-engine",), namespace="demo")


@pytest.mark.parametrize(
    "description",
    [
        "",
        "orders",
        "leasegate",
        "leasegate {}",
        "leasegate {",
        'leasegate {"cluster":"u"}',
        'leasegate {"cluster":"u","owners":[]}',
        'leasegate {"cluster":1,"namespace":"n","owners":[]}',
        'leasegate {"cluster":"u","namespace":1,"owners":[]}',
        'leasegate {"cluster":"u","namespace":"n","owners":"x"}',
        'leasegate {"cluster":"u","namespace":"n","owners":[1]}',
        'leasegate {"cluster":"u","namespace":"n","owners":[],"shared":"evil"}',
        'leasegate {"cluster":"u","namespace":"n","owners":[]} and more',
        'notleasegate {"cluster":"u","namespace":"n","owners":[]}',
    ],
)
def test_anything_else_is_somebody_elses(description: str) -> None:
    assert Marker.parse(description) is None


def test_a_mount_of_another_type_has_no_marker() -> None:
    assert Mount("m", "kv", str(Marker("u", ("demo/a",)))).marker is None


def quiesce_report(**changes: object) -> QuiesceReport:
    message = types_pb2.QuiesceReport(
        target=types_pb2.VaultTargetRef(address="HTTPS://vault:8200/"),
        mount="m",
        connection="c",
        open_attempts=0,
        valid_for=Duration(seconds=10),
    )
    message.count_time.seconds = 1000
    message.MergeFrom(types_pb2.QuiesceReport(**changes))  # type: ignore[arg-type]
    return QuiesceReport.from_proto(message)


def test_a_fresh_answer_for_the_place_permits_the_change() -> None:
    for now in (996, 1000, 1010):
        require_quiesce_report(quiesce_report(), TARGET, mount="m", connection="c", now=now, what="x")


@pytest.mark.parametrize(
    ("answer", "connection", "now", "open_attempts"),
    [
        (None, "c", 1000, "unknown"),
        (quiesce_report(), "c", 1010.5, "unknown"),
        (quiesce_report(), "c", 990, "unknown"),
        (quiesce_report(), "", 1000, "unknown"),
        (quiesce_report(), "other", 1000, "unknown"),
        (quiesce_report(mount="other"), "c", 1000, "unknown"),
        (quiesce_report(target=types_pb2.VaultTargetRef(address="https://other:8200")), "c", 1000, "unknown"),
        (quiesce_report(target=types_pb2.VaultTargetRef(address="nonsense")), "c", 1000, "unknown"),
        (quiesce_report(target=types_pb2.VaultTargetRef(vault_namespace="org")), "c", 1000, "unknown"),
        (quiesce_report(open_attempts=2), "c", 1000, "2"),
        (quiesce_report(open_attempts=-1), "c", 1000, "-1"),
    ],
)
def test_anything_else_does_not(answer: QuiesceReport | None, connection: str, now: float, open_attempts: str) -> None:
    with pytest.raises(LeasesInUseError) as waits:
        require_quiesce_report(answer, TARGET, mount="m", connection=connection, now=now, what="it can go")
    assert waits.value.metadata == {"mount": "m", "open_attempts": open_attempts}
    assert waits.value.retry_after_s is not None
