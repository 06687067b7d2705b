"""What operators see and do on the whole stack: leases, orphans, a lost ledger, and access that expires."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from dev.stack.stack import LocalStack
from tests.e2e.space import REQUEST, Space, space
from tests.eventually import eventually

ROOT = Path(__file__).parents[2]


def leasegate(stack: LocalStack, *args: str) -> subprocess.CompletedProcess[str]:
    """Run ``leasegate`` with nothing but what ``make env`` gives."""
    command = [sys.executable, "-m", "cli.leasegate", *args]
    done = subprocess.run(
        command, env=stack.environment(), capture_output=True, text=True, check=False, timeout=60, cwd=ROOT
    )
    assert "Traceback" not in done.stderr, done.stderr
    return done


def remembered(stack: LocalStack) -> str:
    """The ledger's id as the watcher keeps it."""
    return stack.kubectl(
        "-n", "leasegate-system", "get", "configmap/leasegate-ledger", "-o", "jsonpath={.data.ledger-id}"
    ).stdout


def access(stack: LocalStack) -> Path:
    """Where the access service keeps its ledger."""
    return stack.directory / "services" / "ledger.sqlite"


@pytest.fixture
def guide(stack: LocalStack, request: pytest.FixtureRequest) -> Iterator[Space]:
    """The guide's objects, the request not decided yet."""
    with space(stack, f"op{abs(hash(request.node.name)) % 10**6}") as made:
        made.apply(*made.guide())
        yield made


def test_access_expires_for_good_after_its_ttl(guide: Space) -> None:
    """``spec.ttl``: Secret, Role and RoleBinding are deleted, the database user is dropped, and all stays so."""
    (request,) = guide.guide("postgresAccessRequest")
    guide.kubectl("delete", REQUEST)
    guide.apply(request | {"spec": request["spec"] | {"ttl": "4s"}})
    name = guide.granted()
    data = eventually(lambda: guide.secret(name))
    assert isinstance(data, dict)
    guide.phase(REQUEST, "Expired", timeout_s=30)
    eventually(lambda: not guide.get(f"secret/{name}"))
    eventually(lambda: not guide.database_users())
    assert not guide.user_works(data)
    status = guide.status(REQUEST)
    assert "secret" not in status
    assert "lease" not in status
    guide.reported(REQUEST, "AccessEnded", "Expired")
    left = guide.kubectl("get", "roles,rolebindings", "-o", "name").split()
    assert left == ["rolebinding.rbac.authorization.k8s.io/leasegate-enabled-namespace"]
    guide.annotate(REQUEST, "touched=yes")  # nothing brings it back
    refused = guide.vault_command("approve", "databaseaccessrequest", "postgres-cred-rqst")
    assert guide.status(REQUEST)["phase"] == "Expired", refused.stdout + refused.stderr
    assert not guide.database_users()


def test_no_access_is_longer_than_the_operator_allows(guide: Space) -> None:
    """``--max-access-duration`` ends what has no ``ttl`` of its own."""
    stack = guide.stack
    service = stack.process("access")
    restart_with(stack, LEASEGATE_ACCESS_MAX_ACCESS_DURATION="4s")
    try:
        name = guide.granted()
        guide.phase(REQUEST, "Expired", timeout_s=30)
        eventually(lambda: not guide.get(f"secret/{name}"))
        eventually(lambda: not guide.database_users())
        guide.reported(REQUEST, "AccessEnded", "Expired")
    finally:
        service.terminate()
        service.start()
        service.wait_ready()


def restart_with(stack: LocalStack, **more: str) -> None:
    """Restart the access service with other settings than the stack's."""
    service = stack.process("access")
    service.terminate()
    usual = service._command
    service._command = lambda: replace(usual(), env={**(usual().env or {}), **more})
    service.start()
    service._command = usual
    service.wait_ready()


def test_leases_and_orphans_as_an_operator_sees_them(guide: Space) -> None:
    guide.granted()
    stack = guide.stack
    shown = json.loads(leasegate(stack, "leases", "--state=active", "-o", "json").stdout)
    (mine,) = [lease for lease in shown if lease["username"] in guide.database_users()]
    assert mine["lease_id"] == guide.status(REQUEST)["lease"]["id"]
    clean = leasegate(stack, "orphans", "--postgres", stack.postgres_url)
    assert clean.returncode == 0, clean.stdout
    role = guide.status(REQUEST)["lease"]["id"].split("/creds/")[1].rpartition("/")[0]
    taken = stack.vault_api().call("GET", f"{guide.mount}/creds/{role}").body
    found = leasegate(stack, "orphans")
    assert found.returncode == 1
    assert taken["lease_id"] in found.stdout
    stack.bao("lease", "revoke", "-sync", taken["lease_id"])  # what the advice says
    assert leasegate(stack, "orphans", "--postgres", stack.postgres_url).returncode == 0
    before = guide.secret(guide.secret_name())
    assert leasegate(stack, "revoke", mine["handle"], "--reason", "it leaked").returncode == 0
    eventually(lambda: before["username"] not in guide.database_users(), timeout_s=30)
    eventually(
        lambda: guide.user_works(guide.secret(guide.secret_name())), timeout_s=30
    )  # still approved: it has another


def test_a_lost_ledger_pauses_issuance_until_its_loss_is_accepted(guide: Space) -> None:
    """The watcher keeps the ledger's id in Kubernetes; what was issued works on, and nothing new is issued."""
    stack = guide.stack
    name = guide.granted()
    data = guide.secret(name)
    known = remembered(stack)
    assert leasegate(stack, "ledger", "check", str(access(stack))).returncode == 0
    assert json.loads(leasegate(stack, "ledger", "export", str(access(stack))).stdout)["meta"][0]["value"] == known
    service = stack.process("access")
    service.terminate()
    for file in access(stack).parent.glob("ledger.sqlite*"):
        file.unlink()
    service.start()
    service.wait_ready()
    reported = eventually(lambda: guide.condition(REQUEST, "IssuancePaused"), timeout_s=60)
    assert isinstance(reported, dict)
    assert "accept-loss" in reported["message"]
    guide.reported(REQUEST, "Warning", "LedgerMismatch")
    assert guide.secret(name) == data
    assert guide.user_works(data)
    assert guide.status(REQUEST)["secret"]["name"] == name
    status = leasegate(stack, "ledger", "status")
    assert status.returncode == 1
    assert known in status.stdout
    done = leasegate(stack, "ledger", "accept-loss", "--reason", "the disk burnt", "--yes")
    assert done.returncode == 0, done.stderr
    new = eventually(lambda: (found := guide.secret(name)) != data and found, timeout_s=60)
    assert isinstance(new, dict)
    assert guide.user_works(new)
    eventually(lambda: not guide.condition(REQUEST, "IssuancePaused"), timeout_s=30)
    eventually(lambda: remembered(stack) != known, timeout_s=40, what="the new ledger's id in Kubernetes")
    orphans = leasegate(stack, "orphans", "--postgres", stack.postgres_url, "-o", "json")
    assert orphans.returncode == 1
    lost = [orphan for orphan in json.loads(orphans.stdout)["orphans"] if orphan.get("username") == data["username"]]
    assert [orphan["kind"] for orphan in lost] == ["ORPHAN_KIND_DATABASE_USER_UNKNOWN"]
    leases = [
        orphan["lease_id"]
        for orphan in json.loads(orphans.stdout)["orphans"]
        if orphan["kind"] == "ORPHAN_KIND_LEASE_UNKNOWN"
    ]
    for lease_id in leases:
        stack.bao("lease", "revoke", "-sync", lease_id)
    assert leasegate(stack, "orphans", "--postgres", stack.postgres_url).returncode == 0
    assert guide.user_works(new)
