"""Who decides a request for a role of another namespace, and who can act as the requester (C3, M2).

The role is of namespace ``databases``, the request of namespace ``app``. dba approves in ``databases`` and is bound to
leasegate-decider in ``app``; lead approves in ``app`` alone; these are the bindings of docs/security/rbac.md.
"""

from __future__ import annotations

import copy
import json
import re
import secrets
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.eventually import eventually
from tests.integration.admission_world import (
    a_rule,
    approved,
    decide,
    denied,
    grant,
    policed_namespace,
    refused_decision,
)
from tests.integration.kube import (
    DIGEST,
    STAMP,
    WATCHER,
    Can,
    Json,
    Kube,
    Running,
    a_request,
    a_role,
    bind,
    publish,
    refusal,
)

RBAC_PAGE = Path(__file__).parents[2] / "docs/security/rbac.md"
APPROVAL = {"verb": "update", "resource": "databaseaccessrequests", "subresource": "approval"}
ASK_AN_APPROVER = "may not approve this request: ask an approver of namespace"


@pytest.fixture(scope="module")
def databases(cluster: Running) -> str:
    return policed_namespace(cluster)


@pytest.fixture(scope="module")
def app(cluster: Running) -> str:
    return policed_namespace(cluster)


@pytest.fixture(scope="module")
def admin(cluster: Running) -> Kube:
    return Kube(cluster)


@pytest.fixture(scope="module")
def watcher(cluster: Running) -> Kube:
    return Kube(cluster, act_as=WATCHER)


@pytest.fixture(scope="module")
def common_layout(cluster: Running, databases: str, app: str) -> None:
    """Run the commands of docs/security/rbac.md, with the namespaces and groups of this test."""
    (section,) = re.findall(r"### One namespace owns.*?```console\n(.*?)```", RBAC_PAGE.read_text(), re.DOTALL)
    names = {"databases": databases, "app": app, "dba": f"dba-{app}", "app-team": f"app-team-{app}"}
    admin = Kube(cluster)
    admin.create(a_role(databases) | {"metadata": {"name": "app-reader", "namespace": databases}})
    for line in section.replace("\\\n", " ").splitlines():
        words = [_renamed(word, names) for word in line.removeprefix("$ kubectl ").split()]
        cluster.kubectl(*words)
    can = Can(admin, user="x", groups=(names["dba"],))
    eventually(lambda: can(**APPROVAL, namespace=databases), what="the bindings in force")
    writes = {"verb": "patch", "resource": "databaseaccessrequests", "subresource": "status"}
    eventually(lambda: can(**writes, namespace=app), what="the bindings in force")
    bind(admin, app, role="leasegate-approver", subject={"kind": "User", "name": "lead"}, until=APPROVAL)


def _renamed(word: str, names: dict[str, str]) -> str:
    head, mark, tail = word.rpartition("=")
    return head + mark + names.get(tail, tail)


@pytest.fixture
def dba(cluster: Running, app: str, common_layout: None) -> Kube:
    return Kube(cluster, act_as="dba", groups=(f"dba-{app}",))


@pytest.fixture
def lead(cluster: Running, common_layout: None) -> Kube:
    return Kube(cluster, act_as="lead")


@pytest.fixture
def asker(cluster: Running, app: str, common_layout: None) -> Kube:
    return Kube(cluster, act_as="asker", groups=(f"app-team-{app}",))


def foreign(app: str, databases: str, **spec: object) -> Json:
    role = {"kind": "PostgresRole", "name": "app-reader", "namespace": databases}
    return a_request(app, roleRef=role, **spec)


class TestForeignRole:
    """C3: the role's namespace decides."""

    @pytest.fixture
    def request_(self, asker: Kube, watcher: Kube, app: str, databases: str) -> Json:
        return publish(watcher, asker.create(foreign(app, databases)))

    def test_c3_the_role_s_approver_decides(self, dba: Kube, request_: Json) -> None:
        assert decide(dba, request_, approved("dba"))["status"]["conditions"] == [approved("dba")]

    def test_c3_an_approver_of_the_asking_namespace_does_not(
        self, lead: Kube, request_: Json, databases: str, app: str
    ) -> None:
        refused = refused_decision(lead, request_, approved("lead"))
        assert refused.status == 403
        assert f"lead {ASK_AN_APPROVER} {databases}, to which its role belongs" in refused.message
        refused = refused_decision(lead, request_, approved("lead"), denied("lead"))
        assert f"lead {ASK_AN_APPROVER} {databases}" in refused.message

    def test_c3_approvers_of_either_namespace_deny(self, lead: Kube, dba: Kube, request_: Json) -> None:
        decide(dba, request_, approved("dba"))
        assert decide(lead, request_, approved("dba"), denied("lead"))["status"]["conditions"][1] == denied("lead")

    def test_c3_the_dba_denies(self, dba: Kube, request_: Json) -> None:
        assert decide(dba, request_, denied("dba"))["status"]["conditions"] == [denied("dba")]

    def test_c3_the_right_to_decide_on_one_name_is_not_one_elsewhere(
        self, cluster: Running, admin: Kube, request_: Json, databases: str, app: str
    ) -> None:
        user = f"one-name-{secrets.token_hex(3)}"
        name = request_["metadata"]["name"]
        grant(admin, user, a_rule("databaseaccessrequests/approval", "update", names=[name]), namespace=databases)
        bind_decider(admin, user, app)
        one = Kube(cluster, act_as=user)
        assert ASK_AN_APPROVER in refused_decision(one, request_, approved(user)).message

    def test_c3_a_forged_spec_in_a_status_write_changes_nothing(
        self, lead: Kube, request_: Json, app: str, databases: str
    ) -> None:
        forged = copy.deepcopy(request_)
        forged["spec"]["roleRef"]["namespace"] = app
        forged["metadata"]["annotations"] = {STAMP: "somebody"}
        forged["status"]["conditions"] = [approved("lead")]
        refused = refusal(lead, "replace", forged, status=True)
        assert f"lead {ASK_AN_APPROVER} {databases}" in refused.message
        change = {"spec": forged["spec"], "status": {"conditions": [approved("lead")]}}
        assert f"lead {ASK_AN_APPROVER} {databases}" in refusal(lead, "patch", request_, change, status=True).message

    def test_c3_a_decider_has_no_say_in_the_asking_namespace(
        self, dba: Kube, asker: Kube, watcher: Kube, app: str
    ) -> None:
        own = publish(watcher, asker.create(a_request(app)))
        for condition in (approved("dba"), denied("dba")):
            refused = refused_decision(dba, own, condition)
            assert f"dba may not approve or deny this request: ask an approver of namespace {app}," in refused.message

    def test_an_own_request_for_a_foreign_role_needs_ownapproval_there(
        self, cluster: Running, admin: Kube, watcher: Kube, app: str, databases: str, common_layout: None
    ) -> None:
        both = Kube(cluster, act_as="both", groups=(f"dba-{app}", f"app-team-{app}"))
        own = publish(watcher, both.create(foreign(app, databases)))
        grant(admin, "both", a_rule("databaseaccessrequests/ownapproval", "update"), namespace=app)
        assert "both made this request and may not decide it" in refused_decision(both, own, approved("both")).message
        grant(admin, "both", a_rule("databaseaccessrequests/ownapproval", "update"), namespace=databases)
        assert decide(both, own, approved("both"))["status"]["conditions"] == [approved("both")]

    def test_an_asking_team_writes_no_status(self, asker: Kube, request_: Json) -> None:
        refused = refused_decision(asker, request_, approved("asker"))
        assert 'cannot patch resource "databaseaccessrequests/status"' in refused.message


def bind_decider(admin: Kube, user: str, namespace: str) -> None:
    writes = {"verb": "patch", "resource": "databaseaccessrequests", "subresource": "status"}
    bind(admin, namespace, role="leasegate-decider", subject={"kind": "User", "name": user}, until=writes)


@pytest.fixture
def approver(cluster: Running, admin: Kube, databases: str) -> str:
    """Somebody who approves in ``databases``, and may nothing else yet."""
    user = f"approver-{secrets.token_hex(3)}"
    bind(admin, databases, role="leasegate-approver", subject={"kind": "User", "name": user}, until=APPROVAL)
    return user


RIGHTS_ON_AN_ACCOUNT: dict[str, Callable[[], Json]] = {
    "impersonate": lambda: a_rule("serviceaccounts", "impersonate", group="", names=["gitops"]),
    "impersonate, constrained": lambda: a_rule(
        "serviceaccounts", "impersonate:serviceaccount", group="authentication.k8s.io", names=["gitops"]
    ),
    "its tokens": lambda: a_rule("serviceaccounts/token", "create", group="", names=["gitops"]),
    "token Secrets": lambda: a_rule("secrets", "create", group=""),
    "pods": lambda: a_rule("pods", "create", group=""),
}
RIGHTS_ON_A_USER: dict[str, Callable[[], Json]] = {
    "impersonate": lambda: a_rule("users", "impersonate", group="", names=["hal"]),
    "impersonate, constrained": lambda: a_rule(
        "users", "impersonate:user-info", group="authentication.k8s.io", names=["hal"]
    ),
}


class TestSecondIdentities:
    """M2: nobody approves what an identity asks for that he can act as."""

    @pytest.mark.parametrize("right", RIGHTS_ON_AN_ACCOUNT)
    def test_m2_of_a_service_account(
        self, cluster: Running, admin: Kube, watcher: Kube, databases: str, approver: str, right: str
    ) -> None:
        account = f"system:serviceaccount:{databases}:gitops"
        request = publish(watcher, Kube(cluster, act_as=account, groups=("dev",)).create(a_request(databases)))
        grant(admin, approver, RIGHTS_ON_AN_ACCOUNT[right](), namespace=databases)
        self._is_refused(cluster, request, approver, account)

    @pytest.mark.parametrize("right", RIGHTS_ON_A_USER)
    def test_m2_of_a_user(
        self, cluster: Running, admin: Kube, watcher: Kube, databases: str, approver: str, right: str
    ) -> None:
        request = publish(watcher, Kube(cluster, act_as="hal", groups=("dev",)).create(a_request(databases)))
        grant(admin, approver, RIGHTS_ON_A_USER[right]())
        self._is_refused(cluster, request, approver, "hal")

    def _is_refused(self, cluster: Running, request: Json, approver: str, requester: str) -> None:
        refused = refused_decision(Kube(cluster, act_as=approver), request, approved(approver))
        assert refused.status == 403
        assert f"{approver} can act as {requester}, who made this request, and may not approve it" in refused.message
        other = Kube(cluster, act_as="frank", groups=("approvers",))
        assert decide(other, request, approved("frank"))
        denial = decide(Kube(cluster, act_as=approver), request, approved("frank"), denied(approver))
        assert denial["status"]["conditions"][1]["approver"] == approver

    def test_m2_rights_on_another_account_do_not_count(
        self, cluster: Running, admin: Kube, watcher: Kube, databases: str, app: str, approver: str
    ) -> None:
        account = f"system:serviceaccount:{databases}:gitops"
        request = publish(watcher, Kube(cluster, act_as=account, groups=("dev",)).create(a_request(databases)))
        grant(admin, approver, a_rule("serviceaccounts", "impersonate", group="", names=["other"]), namespace=databases)
        grant(admin, approver, a_rule("pods", "create", group=""), namespace=app)
        assert decide(Kube(cluster, act_as=approver), request, approved(approver))

    @pytest.mark.parametrize("subject", ["user", "group", "account", "account without namespace"])
    def test_m2_a_subject_does_not_approve(
        self, cluster: Running, admin: Kube, watcher: Kube, databases: str, approver: str, subject: str
    ) -> None:
        name, groups, named = approver, [f"g-{approver}"], {"kind": "User", "name": approver}
        if subject == "group":
            named = {"kind": "Group", "name": f"g-{approver}"}
        elif subject != "user":
            name = f"system:serviceaccount:{databases}:{approver}"
            named = {"kind": "ServiceAccount", "name": approver}
            named |= {"namespace": databases} if subject == "account" else {}
            bind(admin, databases, role="leasegate-approver", subject={"kind": "User", "name": name}, until=APPROVAL)
        alice = Kube(cluster, "alice")
        others = [{"kind": "User", "name": f"u{number}"} for number in range(5)]
        request = publish(watcher, alice.create(a_request(databases, subjects=[*others, named])))
        reader = Kube(cluster, act_as=name, groups=tuple(groups))
        says = f"{name} is a subject of this request and may not approve it"
        assert says in refused_decision(reader, request, approved(name)).message
        assert decide(reader, request, denied(name))

    def test_m2_a_name_of_another_kind_is_no_subject(
        self, cluster: Running, admin: Kube, watcher: Kube, databases: str, approver: str
    ) -> None:
        account, group = f"system:serviceaccount:{databases}:{approver}", f"g-{approver}"
        bind(admin, databases, role="leasegate-approver", subject={"kind": "User", "name": account}, until=APPROVAL)
        subjects = [
            {"kind": "Group", "name": approver},
            {"kind": "User", "name": group},
            {"kind": "ServiceAccount", "name": "other", "namespace": databases},
        ]
        request = publish(watcher, Kube(cluster, "alice").create(a_request(databases, subjects=subjects)))
        assert decide(Kube(cluster, act_as=approver, groups=(group,)), request, approved(approver))
        named = [{"kind": "User", "name": approver}, {"kind": "Group", "name": approver}]
        request = publish(watcher, Kube(cluster, "alice").create(a_request(databases, subjects=named)))
        assert decide(Kube(cluster, act_as=account), request, approved(account))

    @pytest.mark.parametrize("behalf", ["{}", "somebody,{}", "somebody , {} ,else"])
    def test_m2_who_is_behind_a_request_does_not_approve(
        self, cluster: Running, watcher: Kube, databases: str, approver: str, behalf: str
    ) -> None:
        """A portal, or what applies files, asks under its own name: it says for whom, which nobody takes back."""
        alice = Kube(cluster, "alice")
        asked = a_request(databases)
        asked["metadata"].setdefault("annotations", {})["leasegate.dev/on-behalf-of"] = behalf.format(approver)
        request = publish(watcher, alice.create(asked))
        for changed in (None, "somebody", ""):
            change = {"metadata": {"annotations": {"leasegate.dev/on-behalf-of": changed}}}
            assert "cannot be changed or removed" in refusal(alice, "patch", request, change).message
        reader = Kube(cluster, act_as=approver)
        says = f"this request was made on behalf of {approver}, who may not approve it"
        assert says in refused_decision(reader, request, approved(approver)).message
        assert decide(reader, request, denied(approver))

    def test_m2_a_cluster_admin_who_is_a_subject_is_warned(
        self, cluster: Running, watcher: Kube, databases: str
    ) -> None:
        subjects = [{"kind": "User", "name": "admin"}]
        request = publish(watcher, Kube(cluster, "alice").create(a_request(databases, subjects=subjects)))
        patch = f'{{"status":{{"conditions":[{{"type":"Approved","approver":"admin","digest":"{DIGEST}"}}]}}}}'
        said = cluster.kubectl(
            "patch", "dar", request["metadata"]["name"], "-n", databases, "--subresource=status", "--type=merge",
            "-p", patch,
        )  # fmt: skip
        assert "self-approved: admin is a subject of this request and approves it" in said.stderr

    @pytest.mark.parametrize("subject", ["User", "Group", "ServiceAccount"])
    def test_m2_who_may_decide_an_own_request_is_warned_once(
        self, cluster: Running, admin: Kube, watcher: Kube, databases: str, approver: str, subject: str
    ) -> None:
        account = subject == "ServiceAccount"
        user = f"system:serviceaccount:{databases}:{approver}" if account else approver
        bind(admin, databases, role="leasegate-approver", subject={"kind": "User", "name": user}, until=APPROVAL)
        grant(admin, user, a_rule("databaseaccessrequests/ownapproval", "update"), namespace=databases)
        named = {"kind": subject, "name": f"g-{approver}" if subject == "Group" else approver}
        alike = [named | {"kind": kind} for kind in ("User", "Group", "ServiceAccount") if kind != subject]
        says = f"self-approved: {user} is a subject of this request and approves it"

        def decided(subjects: list[Json], *conditions: Json) -> str:
            request = publish(watcher, Kube(cluster, "alice").create(a_request(databases, subjects=subjects)))
            return patched(request["metadata"]["name"], *conditions)

        def patched(name: str, *conditions: Json) -> str:
            done = cluster.kubectl(
                "patch", "dar", name, "-n", databases, "--subresource=status", "--type=merge",
                "-p", json.dumps({"status": {"conditions": conditions}}),
                "--as", user, "--as-group", f"g-{approver}", "--as-group", "system:authenticated",
            )  # fmt: skip
            return str(done.stderr)

        assert says in decided([named], approved(user))
        assert "self-approved" not in decided([named], denied(user))
        assert "self-approved" not in decided(alike, approved(user))
        request = publish(watcher, Kube(cluster, "alice").create(a_request(databases, subjects=[named])))
        assert says in patched(request["metadata"]["name"], approved(user))
        assert "self-approved" not in patched(request["metadata"]["name"], approved(user)), "no news"


class TestCost:
    """F2: the largest objects are decided, too: a policy that costs too much refuses everybody."""

    def test_64_subjects_and_every_check(
        self, cluster: Running, admin: Kube, watcher: Kube, dba: Kube, app: str, databases: str
    ) -> None:
        account = f"system:serviceaccount:{app}:gitops"
        robot = Kube(cluster, act_as=account, groups=(f"app-team-{app}", "dev"))
        users = [{"kind": "Group", "name": f"{'g' * 1000}{number:02}"} for number in range(63)]
        account_of_app = {"kind": "ServiceAccount", "namespace": app}
        accounts = [account_of_app | {"name": f"{'s' * 200}{number:02}"} for number in range(64)]
        for subjects in ([*users, {"kind": "User", "name": "u" * 1024}], accounts):
            request = publish(watcher, robot.create(foreign(app, databases, subjects=subjects)))
            facts = [{"type": f"T{n}", "status": "True", "message": "m" * 1000} for n in range(29)]
            publish(watcher, request, conditions=facts)
            groups = (f"dba-{app}", *(f"{'g' * 1000}{number:02}x" for number in range(10)))
            many = Kube(cluster, act_as="dba", groups=groups)
            assert decide(many, request, *facts, approved("dba"))
