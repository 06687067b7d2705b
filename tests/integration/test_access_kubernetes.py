"""Access requests of Kubernetes on real servers: the next step of the watcher, and what becomes of database users."""

from __future__ import annotations

import json
import re
import secrets
import threading
from collections.abc import Callable, Iterator
from typing import Any, Literal

import pytest
from google.protobuf.duration_pb2 import Duration
from google.protobuf.timestamp_pb2 import Timestamp

from leasegate.access.v1 import access_request_pb2, approval_pb2, lease_pb2
from leasegate.access.v1 import requester_service_pb2 as requester
from leasegate.access.v1 import watcher_service_pb2 as watcher
from leasegate.roles.v1 import db_role_pb2
from leasegate.types.v1 import types_pb2
from services.common import errors
from services.common.logs import configure
from services.roles.statements import checked
from tests.eventually import eventually
from tests.integration.access_world import (
    ALICE,
    CREATE,
    DB,
    SECOND,
    WATCHER,
    Callee,
    Dar,
    Watcher,
    World,
    approve,
    decision,
    in_process,
    put_role,
    world,
)
from tests.servers import Servers
from tests.vaults import MAIN

NONE, CLAIM, ACKNOWLEDGE, REMOVE = (
    watcher.NEXT_STEP_NONE,
    watcher.NEXT_STEP_CLAIM,
    watcher.NEXT_STEP_ACKNOWLEDGE,
    watcher.NEXT_STEP_REMOVE,
)

OTHER = [*CREATE, 'GRANT pg_read_all_data TO "{{name}}";']
"""What another role creates."""


@pytest.fixture(scope="module")
def made(servers: Servers, tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    with world(servers, tmp_path_factory.mktemp("access")) as found:
        yield found


@pytest.fixture(scope="module")
def service(made: World) -> Iterator[Callee]:
    with in_process(made, overlap_s=1) as found, Watcher(made, found):
        yield found


@pytest.fixture
def callee(made: World, service: Callee) -> Callee:
    """The service with the guide's role as it is in Vault."""
    put_role(made, service)
    return service


def conditions(answer: watcher.EnsureAccessRequestResponse) -> dict[str, str]:
    return {each.type: each.reason for each in answer.access_request.conditions}


def grant_of(made: World, callee: Callee, dar: Dar) -> str:
    """The digest of what a request would grant if its namespace were allowed."""
    put_role(made, callee, allow_from=[dar.desired.object.namespace])
    found = dar.ensure().access_request.digest
    put_role(made, callee)
    return found


def gone(made: World, *credentials: lease_pb2.Credential) -> None:
    eventually(
        lambda: not {each.username for each in credentials} & made.database_users(),
        timeout_s=15,
        what="dropped database users",
    )


def test_the_steps_of_the_guide(made: World, callee: Callee) -> None:
    dar = Dar(callee)
    waiting = dar.ensure()
    assert (waiting.next_step, waiting.access_request.approval_state) == (NONE, approval_pb2.APPROVAL_STATE_PENDING)
    assert re.fullmatch("2:[0-9a-f]{64}", waiting.access_request.digest)
    assert not waiting.access_request.conditions
    approved = dar.decide()
    assert (approved.next_step, conditions(approved)) == (CLAIM, {"Available": "IssuingCredential"})
    credential = dar.claim()
    assert made.can_log_in(credential)
    assert dar.ensure().next_step == CLAIM  # it does not hold it
    assert dar.ensure(secret_attempt=credential.attempt).next_step == ACKNOWLEDGE
    shown = dar.acknowledge(credential.attempt)
    assert dar.acknowledge(credential.attempt).active_attempt == shown.active_attempt
    done = dar.ensure(secret_attempt=credential.attempt)
    assert (done.next_step, conditions(done)) == (NONE, {"Available": "SuccessfullyIssuedCredential"})
    assert done.access_request.lease.lease_id.startswith(f"{made.mount}/creds/k8s.-.demo.psql-role/")
    assert done.access_request.lease.renewable
    ended = dar.end()
    assert dar.ensure(secret_attempt=credential.attempt).next_step == REMOVE
    assert not dar.ensure().access_request.HasField("lease")
    gone(made, credential)
    eventually(lambda: not dar.end().open_attempts)
    assert {each.type for each in ended.conditions} <= {"RevocationPending"}


def test_ending_what_was_never_seen_counts_as_done(callee: Callee) -> None:
    dar = Dar(callee)
    assert dar.end().open_attempts == 0
    assert dar.ensure().next_step == REMOVE  # an event that comes late brings nothing back


def test_a_denied_request_never_gets_a_credential(made: World, callee: Callee) -> None:
    dar = Dar(callee)
    before = made.database_users()
    dar.ensure()
    assert dar.decide("DENIED").next_step == REMOVE
    assert dar.decide("APPROVED").access_request.approval_state == approval_pb2.APPROVAL_STATE_DENIED
    with pytest.raises(errors.ApprovalDeniedError):
        dar.claim()
    assert made.database_users() == before


def test_a_deny_after_the_approval_revokes(made: World, callee: Callee) -> None:
    dar = Dar(callee)
    credential = dar.issue()
    assert dar.decide("DENIED").next_step == REMOVE
    gone(made, credential)


MALFORMED: list[dict[str, Any]] = [
    {"digest": "0" * 65},
    {"digest": "Zz" * 4000},
    {"decide_time": Timestamp(seconds=2**62)},
    {"decide_time": Timestamp(seconds=-(2**62))},
    {"approver": "x" * 5000},
    {"reason": "x" * 5000},
    {"message": "x" * 50_000},
    {"self_approved": True},
]


@pytest.mark.parametrize("wrong", MALFORMED, ids=[next(iter(each)) for each in MALFORMED])
def test_a_denial_counts_whatever_else_is_wrong_with_it(made: World, callee: Callee, wrong: dict[str, Any]) -> None:
    """M1: nothing that is wrong with a denial keeps it from being carried out."""
    dar = Dar(callee)
    credential = dar.issue()
    dar.desired.decisions.append(decision("DENIED"))
    dar.desired.decisions[-1].MergeFrom(approval_pb2.Decision(**wrong))
    denied = dar.ensure(secret_attempt=credential.attempt)
    assert (denied.next_step, denied.access_request.approval_state) == (REMOVE, approval_pb2.APPROVAL_STATE_DENIED)
    gone(made, credential)
    with pytest.raises(errors.ApprovalDeniedError):
        dar.claim()


def test_an_approval_of_a_malformed_digest_counts_for_nothing(callee: Callee) -> None:
    dar = Dar(callee)
    dar.ensure()
    for digest in ("0" * 65, dar.desired.status_digest + "0", dar.desired.status_digest.upper() + "G"):
        pending = dar.decide(digest=digest)
        assert pending.access_request.approval_state == approval_pb2.APPROVAL_STATE_PENDING
    assert dar.decide().access_request.approval_state == approval_pb2.APPROVAL_STATE_APPROVED
    assert dar.decide("DENIED").next_step == REMOVE


def test_decisions_count_for_what_they_were_made_on(callee: Callee) -> None:
    guide = Dar(callee)  # a raw condition has no digest: the one in the status counts
    guide.ensure()
    assert guide.decide(digest="").access_request.approval_state == approval_pb2.APPROVAL_STATE_APPROVED
    other = Dar(callee)
    other.ensure()
    outdated = other.decide(digest="0" * 64)
    assert outdated.access_request.approval_state == approval_pb2.APPROVAL_STATE_PENDING
    assert conditions(outdated)["ApprovalStale"] == "GrantChanged"
    assert other.decide().access_request.approval_state == approval_pb2.APPROVAL_STATE_APPROVED
    early = Dar(callee, role="later-role")  # nobody can know what is approved there
    early.ensure()
    assert early.decide(digest="").access_request.approval_state == approval_pb2.APPROVAL_STATE_PENDING
    assert conditions(early.ensure())["RoleNotReady"] == "RoleNotFound"
    for dar in (guide, other, early):
        dar.end()


INVENTED: dict[str, Callable[[db_role_pb2.DbRoleSnapshot], object]] = {
    "creation": lambda s: s.definition.creation_statements.append('ALTER ROLE "{{name}}" SUPERUSER;'),
    "revocation": lambda s: s.definition.revocation_statements.append("SELECT 1;"),
    "rollback": lambda s: s.definition.rollback_statements.append("SELECT 1;"),
    "renew": lambda s: s.definition.renew_statements.append("SELECT 1;"),
    "no TTL": lambda s: s.definition.ClearField("default_ttl"),
    "longer": lambda s: s.definition.max_ttl.FromSeconds(10**6),
    "connection": lambda s: setattr(s.definition, "db_name", "k8s.-.payments.ledger"),
    "mount": lambda s: setattr(s, "mount", "team/payments"),
    "role": lambda s: setattr(s, "vault_role", "k8s.-.payments.admin"),
    "database": lambda s: setattr(s, "database", "payments:5432/ledger"),
    "no database": lambda s: s.ClearField("database"),
    "plugin": lambda s: setattr(s, "plugin", "mysql-database-plugin"),
    "Vault": lambda s: setattr(s.target, "vault", SECOND),
}


def test_h2_h3_an_invented_snapshot_under_the_old_digest_is_pending(made: World, callee: Callee) -> None:
    """Rows H2 and H3: access computes the digest from all of the snapshot, and believes no digest in it."""
    dar, calls = Dar(callee), callee.as_(WATCHER).watcher
    dar.ensure()
    approved = dar.decide().access_request
    assert approved.approval_state == approval_pb2.APPROVAL_STATE_APPROVED
    seen = {approved.digest}
    for what, change in INVENTED.items():
        snapshot = made.snapshot()
        change(snapshot)
        calls.PutDbRoleSnapshot(watcher.PutDbRoleSnapshotRequest(snapshot=snapshot))
        with pytest.raises(errors.ApprovalRequiredError):
            dar.claim()
        invented = dar.ensure().access_request
        assert invented.approval_state == approval_pb2.APPROVAL_STATE_PENDING, what
        seen.add(invented.digest)
    assert len(seen) == 1 + len(INVENTED)
    snapshot = made.snapshot()
    snapshot.digest, snapshot.target.digest = "e" * 64, "f" * 16
    calls.PutDbRoleSnapshot(watcher.PutDbRoleSnapshotRequest(snapshot=snapshot))
    assert dar.ensure().access_request.approval_state == approval_pb2.APPROVAL_STATE_APPROVED
    dar.end()


def test_the_grant_shows_what_the_digest_covers(made: World, callee: Callee) -> None:
    put_role(made, callee, create=[*CREATE, "-- \u202egnp.exe\x1b[2K"])
    dar = Dar(callee)
    dar.desired.reason, dar.desired.ticket = "monthly\nreport", "OPS-1"
    grant = dar.ensure().access_request.grant
    assert (grant.vault, grant.mount, grant.database) == (
        f"{MAIN} ({made.servers.vault_addr})",
        made.mount,
        made.snapshot().database,
    )
    assert list(grant.creation_statements) == [*CREATE, "-- \\u202egnp.exe\\x1b[2K"]
    assert (list(grant.subjects), grant.reason) == (["ServiceAccount demo/demo-sa"], "monthly\\x0areport")
    assert (grant.max_ttl.seconds, grant.ticket, grant.omitted_characters) == (86400, "OPS-1", 0)
    dar.desired.ticket = "OPS-2"
    dar.decide()
    dar.desired.object.generation = 2
    assert dar.ensure().access_request.approval_state == approval_pb2.APPROVAL_STATE_PENDING
    dar.desired.reason = "x" * 1025
    with pytest.raises(errors.SpecInvalidError, match="reason"):
        dar.ensure()
    dar.end()


def test_another_role_needs_another_approval(made: World, callee: Callee) -> None:
    dar = Dar(callee)
    credential = dar.issue()
    put_role(made, callee, create=OTHER)
    changed = dar.ensure(secret_attempt=credential.attempt)
    assert changed.access_request.approval_state == approval_pb2.APPROVAL_STATE_PENDING
    assert (changed.next_step, changed.access_request.active_attempt) == (
        NONE,
        credential.attempt,
    )  # it runs to its end
    assert "ApprovalStale" in conditions(changed)
    with pytest.raises(errors.ApprovalRequiredError):
        dar.claim()
    put_role(made, callee)
    assert (
        dar.ensure(secret_attempt=credential.attempt).access_request.approval_state
        == approval_pb2.APPROVAL_STATE_APPROVED
    )
    put_role(made, callee, create=OTHER)
    dar.ensure()
    assert dar.decide().next_step == CLAIM
    another = dar.claim(secret_attempt=credential.attempt)
    dar.acknowledge(another.attempt)
    gone(made, credential)
    dar.end()
    gone(made, another)


def test_a_role_that_goes_and_comes_back(made: World, callee: Callee) -> None:
    dar = Dar(callee)
    credential = dar.issue()
    ref = dar.desired.db_role
    dar.calls.watcher.DeleteDbRoleSnapshot(watcher.DeleteDbRoleSnapshotRequest(object=ref))
    without = dar.ensure(secret_attempt=credential.attempt)
    assert (without.next_step, conditions(without)["RoleDeleted"]) == (NONE, "PostgresRoleDeleted")
    assert without.access_request.digest == ""
    assert made.can_log_in(credential)
    with pytest.raises(errors.DbRoleNotReadyError):
        dar.claim()
    put_role(made, callee)
    assert "RoleDeleted" not in conditions(dar.ensure(secret_attempt=credential.attempt))
    dar.end()
    gone(made, credential)


def test_c3_a_neighbours_request_needs_the_word_of_the_roles_owner(made: World, callee: Callee) -> None:
    """Nothing of the watcher is believed but what its snapshot says of the role."""
    dar = Dar(callee, namespace="evil")
    for allowed in ([], ["other"], ["evi", "evil-2"]):
        put_role(made, callee, allow_from=allowed)
        seen = dar.ensure()
        assert (conditions(seen)["NotAllowedFrom"], seen.access_request.digest) == ("ConsentMissing", "")
        assert "annotates it with leasegate.dev/allow-from: evil" in seen.access_request.conditions[0].message
    dar.decided(digest=grant_of(made, callee, dar))  # the digest can be computed by whoever knows the role
    refused = dar.ensure(claim=True)
    assert refused.access_request.approval_state == approval_pb2.APPROVAL_STATE_PENDING
    assert not refused.HasField("credential")
    with pytest.raises(errors.NotAllowedFromError, match="may not be used from namespace evil"):
        dar.claim()
    assert not made.database_users()
    with pytest.raises(errors.SpecInvalidError, match="allow_from"):
        put_role(made, callee, allow_from=["*"])
    dar.end()


def test_m4_forbidden_subjects_get_nothing_and_a_denial_counts(made: World, callee: Callee) -> None:
    """F15: a request from before the rules of the CRD, which skip what is unchanged."""
    masters = access_request_pb2.Subject(kind="Group", name="system:masters")
    robot = access_request_pb2.Subject(kind="ServiceAccount", name="robot", namespace="ci")
    for subject, may_be_named in ((masters, False), (robot, True)):
        dar = Dar(callee)
        dar.desired.subjects.append(subject)
        put_role(made, callee)
        seen = dar.ensure()
        assert (conditions(seen)["SubjectsForbidden"], seen.access_request.digest) == ("SubjectNotPermitted", "")
        put_role(made, callee, allow_subjects_from=["ci"])
        named = dar.ensure()
        assert ("SubjectsForbidden" not in conditions(named)) is may_be_named
        digest = named.access_request.digest or grant_of(made, callee, dar)
        dar.decided(digest=digest)
        answer = dar.ensure(claim=True)
        if may_be_named:
            credential = dar.claimed(answer)
            put_role(made, callee)
            assert conditions(dar.ensure())["SubjectsForbidden"] == "SubjectNotPermitted"
            gone(made, credential)  # it was never acknowledged
        else:
            assert not answer.HasField("credential")
            with pytest.raises(errors.SpecInvalidError, match="subjects"):
                dar.claim()
        denied = dar.decide("DENIED", digest=digest)
        assert denied.access_request.approval_state == approval_pb2.APPROVAL_STATE_DENIED
        dar.end()
    put_role(made, callee)


def test_a_role_of_a_neighbour_looks_the_same_whether_it_exists(made: World, callee: Callee) -> None:
    there, nowhere = Dar(callee, namespace="evil"), Dar(callee, namespace="evil", role="nowhere")
    texts = [str(dar.ensure().access_request.conditions).replace("nowhere", "psql-role") for dar in (there, nowhere)]
    assert texts[0] == texts[1]
    assert not there.ensure().access_request.HasField("grant")
    there.end()
    nowhere.end()


def test_consent_that_is_withdrawn_renews_nothing_until_it_is_back(made: World, callee: Callee) -> None:
    made.write_role("k8s.-.demo.short-role", ttl="4s", max_ttl="1h")
    short = {"name": "short-role", "ttl_s": 4, "max_ttl_s": 3600}
    put_role(made, callee, **short, allow_from=["ns-b"])
    dar = Dar(callee, namespace="ns-b", role="short-role")
    first = dar.issue()
    put_role(made, callee, **short)  # as by a `kubectl replace` that loses the annotation
    held = dar.ensure(secret_attempt=first.attempt)
    assert (held.next_step, conditions(held)["NotAllowedFrom"]) == (NONE, "ConsentMissing")
    assert made.can_log_in(first)
    gone(made, first)
    assert dar.ensure(secret_attempt=first.attempt, claim=True).next_step == REMOVE
    put_role(made, callee, **short, allow_from=["ns-b"])
    again = dar.ensure(claim=True)  # the approval still names what is granted
    assert "NotAllowedFrom" not in conditions(again)
    second = dar.claimed(again)
    assert made.can_log_in(second)
    dar.end()
    gone(made, second)


def test_a_role_that_may_not_use_its_connection_any_more(made: World, callee: Callee) -> None:
    dar = Dar(callee)
    credential = dar.issue()
    why = "AppBinding dba/db may not be used from namespace demo"
    message = watcher.DeleteDbRoleSnapshotRequest(object=dar.desired.db_role, not_allowed=why)
    dar.calls.watcher.DeleteDbRoleSnapshot(message)
    held = dar.ensure(secret_attempt=credential.attempt)
    assert (held.next_step, conditions(held)["NotAllowedFrom"]) == (NONE, "ConsentMissing")
    assert why in str(held.access_request.conditions)
    assert made.can_log_in(credential)
    put_role(made, callee)
    assert "NotAllowedFrom" not in conditions(dar.ensure(secret_attempt=credential.attempt))
    dar.end()
    gone(made, credential)


def test_a_lost_secret_gets_a_new_credential_and_the_old_one_ends(made: World, callee: Callee) -> None:
    dar = Dar(callee)
    first = dar.issue()
    assert dar.ensure(secret_attempt=0).next_step == CLAIM
    second = dar.claim(secret_attempt=0)
    assert second.attempt > first.attempt
    dar.acknowledge(second.attempt)
    gone(made, first)
    assert made.can_log_in(second)
    dar.end()
    gone(made, second)


def test_who_else_may_use_it(callee: Callee) -> None:
    dar = Dar(callee)
    dar.ensure()
    with pytest.raises(errors.CallerNotAllowedError):
        approve(callee, dar.uid)
    with pytest.raises(errors.AccessRequestNotFoundError):
        callee.as_(ALICE).requester.ClaimCredential(requester.ClaimCredentialRequest(access_request_id=dar.uid))
    with pytest.raises(errors.CallerNotAllowedError):
        callee.as_(ALICE).watcher.EnsureAccessRequest(dar.desired)
    dar.end()


def test_an_older_generation_and_a_repeated_ensure_change_nothing(callee: Callee) -> None:
    dar = Dar(callee)
    digest = dar.ensure().access_request.digest
    dar.desired.subjects.add(kind="Group", name="others")
    dar.desired.object.generation = 2
    newer = dar.ensure().access_request.digest
    assert newer != digest
    dar.desired.object.generation = 1
    del dar.desired.subjects[1:]
    assert dar.ensure().access_request.digest == newer
    dar.end()


@pytest.mark.parametrize("field", ["uid", "name", "namespace"])
def test_a_field_that_is_missing_is_named(callee: Callee, field: Literal["uid", "name", "namespace"]) -> None:
    dar = Dar(callee)
    dar.desired.object.ClearField(field)
    with pytest.raises(errors.SpecInvalidError, match=field):
        dar.ensure()


def test_the_feed_announces_what_no_answer_said(made: World, callee: Callee) -> None:
    calls = callee.as_(WATCHER).watcher
    begun = calls.WatchChanges(watcher.WatchChangesRequest())
    assert begun.restarted
    assert len(begun.ledger_id) == 32
    dar = Dar(callee)
    dar.ensure()  # its answer says all of it
    batch = calls.WatchChanges(watcher.WatchChangesRequest(cursor=begun.next_cursor, max_wait=Duration()))
    assert dar.uid not in {change.access_request_changed.uid for change in batch.changes}
    assert not batch.restarted
    put_role(made, callee, create=OTHER)
    batch = calls.WatchChanges(watcher.WatchChangesRequest(cursor=batch.next_cursor, max_wait=Duration(seconds=5)))
    assert dar.uid in {change.access_request_changed.uid for change in batch.changes}
    put_role(made, callee)
    quiet = calls.WatchChanges(watcher.WatchChangesRequest(cursor="elsewhere:7", max_wait=Duration(seconds=5)))
    assert quiet.restarted
    dar.end()


def place(made: World) -> types_pb2.VaultTargetRef:
    """The same Vault by another name: the engine's AppBinding need not be the request's."""
    return types_pb2.VaultTargetRef(
        cluster="-", namespace="other", name="vault2", vault=MAIN, address=made.servers.vault_addr
    )


def test_quiesce_stops_issuing_and_counts(made: World, callee: Callee) -> None:
    dar, other = Dar(callee), Dar(callee)
    credential = dar.issue()
    other.ensure()
    calls, at = callee.as_(WATCHER).watcher, place(made)
    counted = calls.Quiesce(watcher.QuiesceRequest(target=at, mount=made.mount, connection=DB))
    assert counted.quiesce_report.open_attempts == 1
    assert "1 credential(s) in use" in counted.conditions[0].message
    paused = other.decide()
    assert (paused.next_step, conditions(paused)["IssuancePaused"]) == (NONE, "SecretEngineUpdating")
    with pytest.raises(errors.DbRoleNotReadyError):
        other.claim()
    assert dar.ensure(secret_attempt=credential.attempt).next_step == NONE
    calls.Quiesce(watcher.QuiesceRequest(target=at, mount=made.mount, revoke_leases=True))
    gone(made, credential)
    eventually(
        lambda: not calls.Quiesce(watcher.QuiesceRequest(target=at, mount=made.mount)).quiesce_report.open_attempts
    )
    assert dar.ensure(secret_attempt=credential.attempt).next_step == REMOVE
    calls.Resume(watcher.ResumeRequest(target=at, mount=made.mount, connection=DB))
    calls.Resume(watcher.ResumeRequest(target=at, mount=made.mount))
    assert other.ensure().next_step == CLAIM
    assert dar.ensure().next_step == CLAIM
    for each in (dar, other):
        each.end()


def test_denied_while_the_credential_is_read(made: World, callee: Callee) -> None:
    made.write_role("k8s.-.demo.slow-role", create=[*CREATE, "SELECT pg_sleep(1);"])
    put_role(made, callee, name="slow-role")
    dar = Dar(callee, role="slow-role")
    dar.ensure()
    dar.decide()
    seen: list[BaseException] = []

    def claim() -> None:
        try:
            dar.claim()
        except errors.LeasegateError as err:
            seen.append(err)

    claiming = threading.Thread(target=claim)
    before = made.database_users()
    claiming.start()
    eventually(lambda: dar.ensure().access_request.access_state == access_request_pb2.ACCESS_STATE_ISSUING)
    dar.decide("DENIED")
    claiming.join(timeout=10)
    assert isinstance(seen[0], errors.ConflictError)
    eventually(lambda: not dar.end().open_attempts, timeout_s=15)
    assert made.database_users() <= before


def test_a_credential_is_renewed_then_replaced_before_its_longest_life(made: World, callee: Callee) -> None:
    made.write_role("k8s.-.demo.short-role", ttl="3s", max_ttl="9s")
    put_role(made, callee, name="short-role", ttl_s=3, max_ttl_s=9)
    dar = Dar(callee, role="short-role")
    first = dar.issue()
    eventually(
        lambda: dar.ensure(secret_attempt=first.attempt).access_request.lease.HasField("renew_time"), timeout_s=10
    )
    renewed = dar.ensure(secret_attempt=first.attempt).access_request.lease
    assert renewed.expire_time.seconds > first.lease.expire_time.seconds
    eventually(lambda: dar.ensure(secret_attempt=first.attempt).next_step == CLAIM, timeout_s=15)
    assert made.can_log_in(first)
    second = dar.claim(secret_attempt=first.attempt)
    dar.acknowledge(second.attempt)
    gone(made, first)
    assert made.can_log_in(second)
    dar.end()
    gone(made, second)


def test_a_lease_that_somebody_revoked_is_replaced(made: World, callee: Callee) -> None:
    made.write_role("k8s.-.demo.short-role", ttl="4s", max_ttl="1h")
    put_role(made, callee, name="short-role", ttl_s=4, max_ttl_s=3600)
    dar = Dar(callee, role="short-role")
    credential = dar.issue()
    made.servers.must("POST", "sys/leases/revoke", lease_id=credential.lease.lease_id, sync=True)
    eventually(lambda: dar.ensure(secret_attempt=credential.attempt).next_step == CLAIM, timeout_s=10)
    another = dar.claim(secret_attempt=credential.attempt)
    assert made.can_log_in(another)
    dar.end()
    gone(made, another)


def test_spec_ttl_ends_access(made: World, callee: Callee) -> None:
    dar = Dar(callee, ttl_s=3)
    credential = dar.issue()
    assert (
        credential.lease.expire_time.seconds <= credential.lease.issue_time.seconds + 40
    )  # the token's end: holds without Leasegate running
    eventually(
        lambda: (
            dar.ensure(secret_attempt=credential.attempt).access_request.approval_state
            == approval_pb2.APPROVAL_STATE_EXPIRED
        ),
        timeout_s=10,
    )
    assert dar.ensure(secret_attempt=credential.attempt).next_step == REMOVE
    gone(made, credential)


def test_a_role_whose_creation_fails_is_a_condition_and_leaves_nothing(made: World, callee: Callee) -> None:
    made.write_role("k8s.-.demo.broken-role", create=["CREATE NONSENSE"])
    put_role(made, callee, name="broken-role")
    dar = Dar(callee, role="broken-role")
    dar.ensure()
    dar.decide()
    with pytest.raises(errors.VaultFailedError, match="SQLSTATE 42601"):
        dar.claim()
    failed = dar.ensure()
    assert (failed.next_step, conditions(failed)["Available"]) == (NONE, "FailedToGetCredential")
    assert failed.HasField("retry_after")
    dar.end()
    eventually(lambda: not dar.end().open_attempts, timeout_s=15)


def test_a_role_that_is_not_in_vault_needs_no_recovery(made: World, callee: Callee) -> None:
    put_role(made, callee, name="nowhere")
    dar = Dar(callee, role="nowhere")
    dar.ensure()
    dar.decide()
    with pytest.raises(errors.VaultRefusedError, match="unknown role"):
        dar.claim()
    assert dar.end().open_attempts == 0


def test_a_vault_that_was_not_set_up_says_what_to_do(made: World, callee: Callee) -> None:
    role = made.servers.must("GET", "auth/token/roles/leasegate")["data"]
    made.servers.must("DELETE", "auth/token/roles/leasegate")
    dar = Dar(callee)
    try:
        dar.ensure()
        dar.decide()
        with pytest.raises(errors.VaultFailedError, match="no token role 'leasegate': set it up"):
            dar.claim()
    finally:
        made.servers.must("POST", "auth/token/roles/leasegate", **role)
    assert dar.end().open_attempts == 0


@pytest.mark.parametrize("statement", ["SELECT 1;", 'ALTER ROLE "{{name}}" RENAME TO "token-demo-h7-{{random}}";'])
def test_h7_revocation_statements_that_end_nothing_keep_no_user(made: World, callee: Callee, statement: str) -> None:
    """Access drops the user with Leasegate's own statements, whatever the team's do."""
    statements = [statement.replace("{{random}}", secrets.token_hex(3))]
    made.write_role("k8s.-.demo.h7-role", revoke=list(checked(statements)))
    put_role(made, callee, name="h7-role", revoke=statements)
    dar = Dar(callee, role="h7-role")
    credential = dar.issue()
    dar.decide("DENIED")
    gone(made, credential)
    assert not made.can_log_in(credential)
    dar.end()


@pytest.mark.parametrize(
    "statements", [[], ['REVOKE ALL ON ALL TABLES IN SCHEMA public FROM "{{name}}";', 'DROP ROLE "{{name}}";']]
)
def test_a_database_user_that_owns_something_is_force_dropped(
    made: World, callee: Callee, statements: list[str]
) -> None:
    made.write_role("k8s.-.demo.owner-role", revoke=statements)
    put_role(made, callee, name="owner-role", revoke=statements)
    dar = Dar(callee, role="owner-role")
    credential = dar.issue()
    session = made.connect(credential)
    session.execute("CREATE TEMP TABLE t (a int)")
    dar.end()
    gone(made, credential)
    eventually(lambda: not dar.end().open_attempts, timeout_s=15)
    assert not made.leases("k8s.-.demo.owner-role")
    session.close()


def test_a_connection_with_another_username_template_issues_nothing(made: World, callee: Callee) -> None:
    config = made.servers.must("GET", f"{made.mount}/config/{DB}")["data"]
    there = {
        "plugin_name": config["plugin_name"],
        "allowed_roles": "*",
        "connection_url": config["connection_details"]["connection_url"],
    }
    admin = {"username": "postgres", "password": "root"}
    made.servers.must("POST", f"{made.mount}/config/{DB}", **there, **admin, username_template="v-{{random 20}}")
    dar = Dar(callee)
    dar.ensure()
    dar.decide()
    with pytest.raises(errors.DbRoleNotReadyError, match="engine service"):
        dar.claim()
    assert made.servers.psql("SELECT count(*) FROM pg_roles WHERE rolname LIKE 'v-%'") == [(0,)]
    made.servers.must(
        "POST", f"{made.mount}/config/{DB}", **there, **admin, username_template="{{ .DisplayName | truncate 63 }}"
    )
    dar.end()
    eventually(lambda: not dar.end().open_attempts, timeout_s=15)


def test_each_write_to_vault_names_its_access_request(callee: Callee, capsys: pytest.CaptureFixture[str]) -> None:
    """From its token to the revocation, by whichever thread; the last part of a lease id is in no line."""
    configure(process="access")
    dar = Dar(callee)
    credential = dar.issue()
    eventually(lambda: not dar.end().open_attempts)
    lines = [json.loads(line) for line in capsys.readouterr().err.splitlines() if '"vault write"' in line]
    mine = [line for line in lines if line["object"] == f"demo/{dar.desired.object.name}"]
    paths = [line["path"].removesuffix("/…") for line in mine]
    lease_id = credential.lease.lease_id
    assert paths[0] == "auth/token/create/leasegate"
    assert lease_id.rpartition("/")[0] in paths
    assert f"sys/leases/revoke/{lease_id.rpartition('/')[0]}" in paths
    assert lease_id.rpartition("/")[2] not in str(lines)
    assert len({line["correlation_id"] for line in mine}) == len(mine)
    assert all(line["vault_request_id"] for line in mine if line["path"].startswith("auth/token/create"))
