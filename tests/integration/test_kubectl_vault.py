"""``kubectl vault`` with a real API server and its policies: output as in the guide, exit codes, helpful errors."""

from __future__ import annotations

import json
import os
import re
import stat
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from click.testing import CliRunner, Result

from cli.kubectl_vault import cluster as cluster_module
from cli.kubectl_vault.cluster import Cluster
from cli.kubectl_vault.commands import cli
from cli.kubectl_vault.resource import Named
from tests.integration.kube import (
    DIGEST,
    EXAMPLES,
    OTHER_DIGEST,
    WATCHER,
    Json,
    Kube,
    Running,
    a_request,
    new_namespace,
    publish,
)

ROOT = Path(__file__).parents[2]
KUBECTL = Path(sys.executable).with_name("kubectl")
Run = Callable[..., Result]


@pytest.fixture(autouse=True)
def kubectl_on_path(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(KUBECTL.parent), prepend=os.pathsep)


@pytest.fixture(scope="module")
def namespace(cluster: Running) -> str:
    return new_namespace(cluster)


@pytest.fixture(scope="module")
def alice(cluster: Running) -> Kube:
    return Kube(cluster, "alice")


@pytest.fixture(scope="module")
def watcher(cluster: Running) -> Kube:
    return Kube(cluster, act_as=WATCHER)


@pytest.fixture
def run(cluster: Running, namespace: str) -> Run:
    """The command as one user, in the test's namespace by default."""

    def run(*args: str, context: str = "bob", stdin: str | None = None, n: str = namespace) -> Result:
        where = [f"--kubeconfig={cluster.kubeconfig}", f"--context={context}", *([f"--namespace={n}"] if n else [])]
        return CliRunner().invoke(cli, [*args, *where], prog_name="kubectl vault", input=stdin, catch_exceptions=False)

    return run


@pytest.fixture
def asked(alice: Kube, watcher: Kube, namespace: str) -> Json:
    """A request of alice's that the watcher has looked at."""
    return publish(watcher, alice.create(a_request(namespace)))


@pytest.fixture(scope="module")
def plugin(
    cluster: Running, tmp_path_factory: pytest.TempPathFactory
) -> Callable[..., subprocess.CompletedProcess[str]]:
    """``kubectl vault ...`` as a person types it, found by kubectl as a plugin on PATH."""
    folder = tmp_path_factory.mktemp("bin")
    program = folder / "kubectl-vault"
    program.write_text(f'#!/bin/sh\nexec {sys.executable} -m cli.kubectl_vault "$@"\n')
    program.chmod(program.stat().st_mode | stat.S_IXUSR)
    env = os.environ | {
        "PATH": os.pathsep.join((str(folder), str(KUBECTL.parent), os.environ["PATH"])),
        "PYTHONPATH": f"{ROOT}:{ROOT / 'protos/gen'}",
        "KUBECONFIG": str(cluster.kubeconfig),
    }

    def plugin(*args: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [KUBECTL, "vault", *args], env=env, capture_output=True, text=True, timeout=60, check=False
        )

    return plugin


def name_of(thing: Json) -> str:
    return str(thing["metadata"]["name"])


def conditions(kube: Kube, thing: Json) -> list[Json]:
    status = kube.get("DatabaseAccessRequest", name_of(thing), thing["metadata"]["namespace"]).get("status", {})
    return list(status.get("conditions", []))


def errors_of(done: Result) -> list[str]:
    """The lines of standard error but for those that say what is granted."""
    return [line for line in done.stderr.splitlines() if line.startswith("error: ")]


class TestAsTheGuidePrintsIt:
    def test_approve(self, plugin: Callable[..., Any], watcher: Kube, asked: Json, namespace: str) -> None:
        done = plugin("approve", "databaseaccessrequest", name_of(asked), "-n", namespace, "--context", "bob")
        assert (done.returncode, done.stdout) == (0, "approved\n")
        assert done.stderr.startswith(f'databaseaccessrequest "{name_of(asked)}" in namespace "{namespace}" grants:\n')
        (condition,) = conditions(watcher, asked)
        assert condition["type"] == "Approved"
        assert condition["reason"] == "KubectlApprove"
        assert condition["message"] == "This was approved by kubectl vault approve databaseaccessrequest"
        assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ", condition["lastUpdateTime"])
        more = {
            key: condition[key] for key in ("status", "approver", "digest", "observedGeneration", "lastTransitionTime")
        }
        assert more == {
            "status": "True",
            "approver": "bob",
            "digest": DIGEST,
            "observedGeneration": 1,
            "lastTransitionTime": condition["lastUpdateTime"],
        }

    def test_deny(self, plugin: Callable[..., Any], watcher: Kube, asked: Json, namespace: str) -> None:
        done = plugin("deny", "databaseaccessrequest", name_of(asked), "-n", namespace, "--context", "bob")
        assert (done.returncode, done.stdout, done.stderr) == (0, "  Denied\n", "")
        (condition,) = conditions(watcher, asked)
        assert (condition["type"], condition["reason"], condition["approver"]) == ("Denied", "KubectlDeny", "bob")
        assert condition["message"] == "This was denied by kubectl vault deny databaseaccessrequest"

    def test_approving_an_own_request_prints_a_warning(
        self, plugin: Callable[..., Any], cluster: Running, watcher: Kube, namespace: str
    ) -> None:
        request = publish(watcher, Kube(cluster).create(a_request(namespace)))
        done = plugin("approve", "databaseaccessrequest", name_of(request), "-n", namespace)
        assert (done.returncode, done.stdout) == (0, "approved\n")
        assert done.stderr.endswith("Warning: self-approved: admin made this request and decides it\n")


GRANT: Json = {"database": "db:5432/app", "creationStatements": ["CREATE ROLE x\u202e"], "subjects": ["User alice"]}


class TestGrant:
    """M5: an approver sees what is granted, and approves exactly that."""

    def test_m5_it_is_described_and_printed_before_the_approval(self, run: Run, watcher: Kube, asked: Json) -> None:
        publish(watcher, asked, grant=GRANT)
        said = run("describe", "dar", name_of(asked)).stdout
        assert f"Digest: {DIGEST}\nGrant:\n  Database: db:5432/app\n  Subjects:\n    - User alice\n" in said
        assert "    - CREATE ROLE x\\u202e\n" in said
        done = run("approve", "dar", name_of(asked), "--digest", DIGEST)
        assert (done.exit_code, done.stdout) == (0, "approved\n")
        assert "  Database: db:5432/app\n" in done.stderr

    def test_m5_another_digest_is_not_approved(self, run: Run, watcher: Kube, asked: Json) -> None:
        publish(watcher, asked, digest=OTHER_DIGEST)
        done = run("approve", "dar", name_of(asked), "--digest", DIGEST)
        assert (done.exit_code, done.stdout) == (1, "")
        assert f"something else would be granted now (digest {OTHER_DIGEST})" in done.stderr
        assert not conditions(watcher, asked)


class TestRules:
    def test_an_approval_is_not_repeated(self, run: Run, asked: Json) -> None:
        assert run("approve", "dar", name_of(asked)).exit_code == 0
        done = run("approve", "dar", name_of(asked))
        assert (done.exit_code, done.stdout) == (1, "")
        assert re.search(r"bob approved it at \d{4}-\S+Z already; to revoke the access, deny it\n$", done.stderr)

    def test_an_approval_can_be_taken_back_by_denying(self, run: Run, watcher: Kube, asked: Json) -> None:
        run("approve", "dar", name_of(asked))
        done = run("deny", "dar", name_of(asked), "--reason", "left the\n  team")
        assert (done.exit_code, done.stdout) == (0, "  Denied\n")
        assert [c["type"] for c in conditions(watcher, asked)] == ["Approved", "Denied"]
        assert (
            conditions(watcher, asked)[1]["message"]
            == "This was denied by kubectl vault deny databaseaccessrequest: left the team"
        )

    @pytest.mark.parametrize("verb", ["approve", "deny"])
    def test_a_denial_is_final(self, run: Run, asked: Json, verb: str) -> None:
        run("deny", "dar", name_of(asked))
        done = run(verb, "dar", name_of(asked))
        assert done.exit_code == 1
        assert re.search(
            r"bob denied it at \d{4}-\S+Z, which is final: delete it and create another one\n$", done.stderr
        )

    def test_another_digest_can_be_approved_again(self, run: Run, watcher: Kube, asked: Json) -> None:
        run("approve", "dar", name_of(asked))
        publish(watcher, asked, digest=OTHER_DIGEST)
        assert run("approve", "dar", name_of(asked)).stdout == "approved\n"
        assert [(c["type"], c["digest"]) for c in conditions(watcher, asked)] == [("Approved", OTHER_DIGEST)]

    def test_without_a_role_there_is_nothing_to_approve(
        self, run: Run, alice: Kube, watcher: Kube, namespace: str
    ) -> None:
        missing = [{"type": "RoleReady", "status": "False", "message": "PostgresRole demo/psql-role does not exist"}]
        request = publish(watcher, alice.create(a_request(namespace)), digest=None, conditions=missing)
        done = run("approve", "dar", name_of(request))
        assert (done.exit_code, done.stdout) == (1, "")
        assert (
            "it cannot be approved yet, since its role is not ready: PostgresRole demo/psql-role does not exist"
            in done.stderr
        )
        assert run("deny", "dar", name_of(request)).exit_code == 0

    def test_what_has_expired_is_not_decided(self, run: Run, watcher: Kube, asked: Json) -> None:
        publish(watcher, asked, phase="Expired")
        for verb in ("approve", "deny"):
            assert "its access has expired" in run(verb, "dar", name_of(asked)).stderr

    def test_other_conditions_are_kept(self, run: Run, watcher: Kube, asked: Json) -> None:
        facts = [{"type": "RoleReady", "status": "True", "reason": "Ready", "message": "m"}]
        publish(watcher, asked, conditions=facts)
        assert run("approve", "dar", name_of(asked)).exit_code == 0
        assert conditions(watcher, asked)[:1] == facts

    def test_approving_waits_until_the_watcher_has_processed_it(
        self, run: Run, alice: Kube, watcher: Kube, namespace: str
    ) -> None:
        request = alice.create(a_request(namespace))
        assert "Leasegate has not processed it yet" in run("approve", "dar", name_of(request), "--wait", "0").stderr
        later = threading.Timer(0.3, publish, (watcher, request))
        later.start()
        try:
            assert run("approve", "dar", name_of(request), "--wait", "20s").stdout == "approved\n"
        finally:
            later.join()

    def test_a_write_in_between_is_noticed_and_tried_again(
        self, run: Run, watcher: Kube, asked: Json, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        get_request, reads = Cluster.get_request, []

        def read_then_somebody_writes(self: Cluster, named: Named) -> Json:
            request = get_request(self, named)
            reads.append(request["metadata"]["resourceVersion"])
            if len(reads) == 1:
                publish(watcher, asked, conditions=[{"type": "RoleReady", "status": "True"}])
            return request

        monkeypatch.setattr(Cluster, "get_request", read_then_somebody_writes)
        assert run("approve", "dar", name_of(asked)).stdout == "approved\n"
        assert len(reads) == 2
        assert [c["type"] for c in conditions(watcher, asked)] == ["RoleReady", "Approved"]


class TestSeveral:
    @pytest.fixture
    def three(self, alice: Kube, watcher: Kube, namespace: str) -> list[Json]:
        return [publish(watcher, alice.create(a_request(namespace))) for _ in range(3)]

    def test_each_is_decided_and_a_failure_stops_no_other(self, run: Run, watcher: Kube, three: list[Json]) -> None:
        first, second, third = map(name_of, three)
        run("deny", "dar", second)
        done = run("approve", "dar", first, "none-such", second, third)
        assert done.exit_code == 1
        assert done.stdout == f"approved {first}\napproved {third}\n"
        assert 'there is no databaseaccessrequest "none-such"' in errors_of(done)[0]
        assert f'databaseaccessrequest "{second}"' in errors_of(done)[1]
        assert [[c["type"] for c in conditions(watcher, each)] for each in three] == [
            ["Approved"],
            ["Denied"],
            ["Approved"],
        ]

    def test_by_type_and_name_and_twice_the_same(self, run: Run, three: list[Json]) -> None:
        first, second, _ = map(name_of, three)
        done = run("deny", f"databaseaccessrequests.engine.kubevault.com/{first}", f"dar/{second}", f"dar/{first}")
        assert (done.exit_code, done.stdout) == (0, f"  Denied {first}\n  Denied {second}\n")

    def test_from_a_file(self, run: Run, three: list[Json], tmp_path: Path) -> None:
        file = tmp_path / "requests.yaml"
        file.write_text(
            yaml.safe_dump_all([{key: each[key] for key in ("apiVersion", "kind", "metadata")} for each in three])
        )
        done = run("approve", "-f", str(file), n="")
        assert (done.exit_code, done.stdout.count("approved")) == (0, 3)

    def test_from_standard_input_in_the_namespace_of_n(
        self, run: Run, watcher: Kube, alice: Kube, namespace: str
    ) -> None:
        printed = yaml.safe_load((EXAMPLES / "postgresAccessRequest.yaml").read_text())
        del printed["metadata"]["namespace"]
        made = publish(watcher, alice.create(printed | {"metadata": printed["metadata"] | {"namespace": namespace}}))
        assert run("approve", "-f", "-", stdin=yaml.safe_dump(printed)).stdout == "approved\n"
        assert conditions(watcher, made)


class TestConnection:
    def test_acting_as_somebody_with_all_of_his_groups(self, run: Run, watcher: Kube, asked: Json) -> None:
        done = run(
            "approve", "dar", name_of(asked), "--as=erin", "--as-group=dev", "--as-group=approvers", context="admin"
        )
        assert done.stdout == "approved\n"
        assert conditions(watcher, asked)[0]["approver"] == "erin"

    def test_flags_may_stand_before_the_command(self, cluster: Running, namespace: str, asked: Json) -> None:
        where = [f"--kubeconfig={cluster.kubeconfig}", "--context=bob", "-n", namespace]
        assert CliRunner().invoke(cli, [*where, "approve", "dar", name_of(asked)]).stdout == "approved\n"

    def test_a_token_and_a_server_are_enough(self, cluster: Running, namespace: str, tmp_path: Path) -> None:
        config = yaml.safe_load(cluster.kubeconfig.read_text())
        server = config["clusters"][0]["cluster"]["server"]
        token = cluster.kubectl("create", "token", "leasegate-watcher", "-n", "leasegate-system").stdout.strip()
        where = [f"--server={server}", f"--token={token}", "--insecure-skip-tls-verify", "-n", namespace]
        env = {"KUBECONFIG": str(tmp_path / "none")}
        assert CliRunner().invoke(cli, ["get", "dar", *where], env=env, catch_exceptions=False).exit_code == 0

    def test_an_error_is_one_line(self, run: Run, cluster: Running, asked: Json, namespace: str) -> None:
        name = name_of(asked)
        cases = {
            "there is no databaseaccessrequest": run("approve", "dar", "none-such"),
            'context "nope" does not exist': run("approve", "dar", name, context="nope"),
            "cannot reach the cluster: The connection to the server 127.0.0.1:1 was refused": run(
                "approve", "dar", name, "--server=https://127.0.0.1:1"
            ),
            "the cluster does not know you": run("approve", "dar", name, "--token=wrong"),
            "ClusterRole leasegate-approver: ask an administrator": run("approve", "dar", name, context="alice"),
            'User "carol" cannot get resource': run("approve", "dar", name, context="carol"),
            "erin made this request": self._own(run, cluster, namespace),
        }
        for says, done in cases.items():
            assert (done.exit_code, done.stdout) == (1, "")
            (line,) = errors_of(done)
            assert says in line
            assert done.stderr.endswith(f"{line}\n")

    def _own(self, run: Run, cluster: Running, namespace: str) -> Result:
        request = Kube(cluster, act_as="erin", groups=("dev", "approvers")).create(a_request(namespace))
        publish(Kube(cluster, act_as=WATCHER), request)
        return run("approve", "dar", name_of(request), "--as=erin", "--as-group=approvers", context="admin")

    def test_an_unchecked_certificate_is_refused_unless_asked_for(
        self, run: Run, tmp_path: Path, asked: Json, cluster: Running
    ) -> None:
        config = yaml.safe_load(cluster.kubeconfig.read_text())
        server = config["clusters"][0]["cluster"]["server"]
        done = CliRunner().invoke(
            cli, ["get", "dar", f"--server={server}", "--token=x"], env={"KUBECONFIG": str(tmp_path / "none")}
        )
        assert done.exit_code == 1
        assert "failed to verify certificate" in done.stderr


class TestGet:
    @pytest.fixture
    def lone(self, cluster: Running) -> str:
        return new_namespace(cluster)

    def test_nothing_there(self, run: Run, lone: str) -> None:
        done = run("get", "databaseaccessrequest", n=lone)
        assert (done.exit_code, done.stdout, done.stderr) == (0, "", f"No resources found in {lone} namespace.\n")
        assert json.loads(run("get", "dar", "-o", "json", n=lone).stdout)["items"] == []

    def test_requests_with_state_approver_and_lease_expiry(
        self, run: Run, alice: Kube, watcher: Kube, lone: str
    ) -> None:
        request = publish(watcher, alice.create(a_request(lone)))
        run("approve", "dar", name_of(request), n=lone)
        decided = conditions(watcher, request)
        publish(watcher, request, phase="Approved", lease={"expireTime": "2099-01-01T00:00:00Z"}, conditions=decided)
        header, row = run("get", "databaseaccessrequest", n=lone).stdout.splitlines()
        assert re.split(r"\s{3,}", header) == ["NAME", "STATUS", "REQUESTER", "APPROVER", "LEASE EXPIRES", "AGE"]
        assert re.split(r"\s{3,}", row)[:4] == [name_of(request), "Approved", "alice", "bob"]
        assert "2099-01-01T00:00:00Z (in " in row

    def test_by_name_and_as_text(self, run: Run, asked: Json, namespace: str) -> None:
        one = json.loads(run("get", "dar", name_of(asked), "-o", "json").stdout)
        assert (one["kind"], one["metadata"]["name"]) == ("DatabaseAccessRequest", name_of(asked))
        done = run("get", "dar", name_of(asked), "none-such", "-o", "yaml")
        assert done.exit_code == 1
        assert [item["metadata"]["name"] for item in yaml.safe_load(done.stdout)["items"]] == [name_of(asked)]
        assert 'there is no databaseaccessrequest "none-such"' in done.stderr

    def test_all_namespaces_page_by_page(
        self, run: Run, alice: Kube, lone: str, asked: Json, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        mine = {name_of(alice.create(a_request(lone))) for _ in range(3)}
        monkeypatch.setattr(cluster_module, "_PAGE", 2)
        done = run("get", "dar", "-A", context="admin", n="")
        rows = [line.split()[:2] for line in done.stdout.splitlines()[1:]]
        assert mine | {name_of(asked)} <= {name for _, name in rows}
        assert {row[0] for row in rows if row[1] in mine} == {lone}

    def test_without_the_right_it_says_so(self, run: Run, lone: str) -> None:
        done = run("get", "dar", context="carol", n=lone)
        assert done.exit_code == 1
        assert 'User "carol" cannot list resource' in done.stderr
