"""Reading, waiting, writing and trying again."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest

from cli.kubectl_vault.deciding import Clock, decide
from cli.kubectl_vault.decisions import Decision, Verdict
from cli.kubectl_vault.errors import CommandError, ConflictError
from cli.kubectl_vault.resource import Named

NAMED = Named("r", "demo")


class Recorded:
    """A cluster that returns each version in turn, then the last one, and refuses the first ``conflicts`` writes."""

    def __init__(self, *versions: dict[str, Any], conflicts: int = 0) -> None:
        self.versions, self.conflicts = list(versions), conflicts
        self.written: list[tuple[str, list[dict[str, Any]]]] = []

    def get_request(self, named: Named) -> dict[str, Any]:
        assert named == NAMED
        return self.versions.pop(0) if len(self.versions) > 1 else self.versions[0]

    def write_conditions(self, named: Named, request: dict[str, Any], conditions: list[dict[str, Any]]) -> None:
        assert named == NAMED
        if self.conflicts:
            self.conflicts -= 1
            raise ConflictError("changed by somebody else")
        self.written.append((request["metadata"]["resourceVersion"], conditions))


class Time:
    """A clock that only sleeping moves."""

    def __init__(self) -> None:
        self.now_s = 100.0

    def sleep(self, seconds: float) -> None:
        self.now_s += seconds

    def clock(self) -> Clock:
        return Clock(lambda: datetime(2026, 11, 24, tzinfo=UTC), lambda: self.now_s, self.sleep)


def version(number: str, **status: Any) -> dict[str, Any]:
    metadata = {"name": "r", "namespace": "demo", "generation": 1, "resourceVersion": number}
    return {"metadata": metadata, "spec": {"roleRef": {}}, "status": status}


SEEN = version("5", observedGeneration=1, digest="d1")


def test_the_decision_is_written_over_the_version_that_was_read() -> None:
    cluster = Recorded(SEEN)
    decide(cluster, NAMED, Decision(Verdict.APPROVE, "bob"), clock=Time().clock(), wait_s=5)
    ((resource_version, conditions),) = cluster.written
    assert resource_version == "5"
    assert [(c["type"], c["digest"]) for c in conditions] == [("Approved", "d1")]


def test_an_approval_waits_for_the_watchers_first_look() -> None:
    cluster, time = Recorded(version("3"), version("4"), SEEN), Time()
    decide(cluster, NAMED, Decision(Verdict.APPROVE, "bob"), clock=time.clock(), wait_s=5)
    assert [number for number, _ in cluster.written] == ["5"]
    assert 100 < time.now_s < 105


def test_the_wait_has_an_end() -> None:
    cluster, time = Recorded(version("3")), Time()
    with pytest.raises(CommandError, match="has not processed it yet"):
        decide(cluster, NAMED, Decision(Verdict.APPROVE, "bob"), clock=time.clock(), wait_s=5)
    assert not cluster.written
    assert 105 <= time.now_s < 106


def test_a_denial_does_not_wait() -> None:
    cluster, time = Recorded(version("3")), Time()
    decide(cluster, NAMED, Decision(Verdict.DENY, "bob"), clock=time.clock(), wait_s=5)
    assert [number for number, _ in cluster.written] == ["3"]
    assert time.now_s == 100


def test_a_conflict_means_reading_again_and_keeping_what_came_meanwhile() -> None:
    fresh = version("6", observedGeneration=1, digest="d1", conditions=[{"type": "RoleReady"}])
    cluster = Recorded(SEEN, fresh, conflicts=1)
    decide(cluster, NAMED, Decision(Verdict.APPROVE, "bob"), clock=Time().clock(), wait_s=0)
    ((resource_version, conditions),) = cluster.written
    assert resource_version == "6"
    assert [c["type"] for c in conditions] == ["RoleReady", "Approved"]


def test_a_decision_that_came_first_is_not_written_over() -> None:
    denied = version("6", observedGeneration=1, digest="d1", conditions=[{"type": "Denied", "approver": "carol"}])
    cluster = Recorded(SEEN, denied, conflicts=1)
    with pytest.raises(CommandError, match="carol denied it"):
        decide(cluster, NAMED, Decision(Verdict.APPROVE, "bob"), clock=Time().clock(), wait_s=0)
    assert not cluster.written


def test_endless_conflicts_are_an_error() -> None:
    cluster = Recorded(SEEN, conflicts=1000)
    with pytest.raises(ConflictError, match="changed by somebody else"):
        decide(cluster, NAMED, Decision(Verdict.APPROVE, "bob"), clock=Time().clock(), wait_s=0)


def test_m5_an_approval_is_for_what_was_shown() -> None:
    changed = version("6", observedGeneration=1, digest="d2")
    cluster, shown = Recorded(SEEN, changed, conflicts=1), list[str]()
    with pytest.raises(CommandError, match="something else would be granted now"):
        decide(
            cluster,
            NAMED,
            Decision(Verdict.APPROVE, "bob"),
            clock=Time().clock(),
            wait_s=0,
            show=lambda request: shown.append(request["status"]["digest"]),
        )
    assert (shown, cluster.written) == (["d1"], [])


@pytest.mark.parametrize(("digest", "approves"), [("d1", True), ("d2", False), ("d", False)])
def test_m5_a_script_names_the_digest_that_it_saw(digest: str, approves: bool) -> None:
    cluster, approve = Recorded(SEEN), Decision(Verdict.APPROVE, "bob")
    if approves:
        decide(cluster, NAMED, approve, clock=Time().clock(), wait_s=0, digest=digest)
    else:
        with pytest.raises(CommandError, match="something else would be granted now"):
            decide(cluster, NAMED, approve, clock=Time().clock(), wait_s=0, digest=digest)
    assert len(cluster.written) == approves
