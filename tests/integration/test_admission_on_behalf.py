"""Who may vouch for the people behind a request, and what becomes of a copied request's requester.

``alice`` has ``edit``. ``portal`` has leasegate-portal, ``gitops`` every right of the namespace by ``*``.
"""

from __future__ import annotations

import secrets
from collections.abc import Iterator
from typing import Any

import pytest

from tests.eventually import eventually
from tests.integration.admission_world import (
    POLICIES,
    approved,
    decide,
    grant,
    policed_namespace,
    refused_decision,
    stamp_of,
)
from tests.integration.kube import STAMP, WATCHER, Json, Kube, Running, a_request, bind, publish, refusal

BEHALF, VERIFIED = "leasegate.dev/on-behalf-of", "leasegate.dev/verified-by"
VOUCHES = {"verb": "impersonate", "resource": "databaseaccessrequests"}
FALSE = "leasegate.dev/verified-by names who vouches for leasegate.dev/on-behalf-of: leave the annotation out"


@pytest.fixture(scope="module")
def namespace(cluster: Running) -> str:
    return policed_namespace(cluster)


@pytest.fixture(scope="module")
def admin(cluster: Running) -> Kube:
    return Kube(cluster)


@pytest.fixture(scope="module")
def alice(cluster: Running) -> Kube:
    return Kube(cluster, "alice")


@pytest.fixture(scope="module")
def watcher(cluster: Running) -> Kube:
    return Kube(cluster, act_as=WATCHER)


@pytest.fixture(scope="module")
def portal(cluster: Running, admin: Kube, namespace: str) -> Kube:
    bind(admin, namespace, role="leasegate-portal", subject={"kind": "User", "name": "portal"}, until=VOUCHES)
    return Kube(cluster, act_as="portal")


@pytest.fixture(scope="module")
def gitops(cluster: Running, admin: Kube, namespace: str) -> Kube:
    grant(admin, "gitops", {"apiGroups": ["*"], "resources": ["*"], "verbs": ["*"]}, namespace=namespace)
    return Kube(cluster, act_as="gitops")


def asked(namespace: str, **annotations: str) -> Json:
    known = {"behalf": BEHALF, "verified": VERIFIED, "stamp": STAMP}
    request = a_request(namespace)
    request["metadata"]["annotations"] = {known[key]: value for key, value in annotations.items()}
    return request


def annotated(**annotations: str | None) -> Json:
    known = {"behalf": BEHALF, "verified": VERIFIED, "stamp": STAMP}
    return {"metadata": {"annotations": {known[key]: value for key, value in annotations.items()}}}


def behind(request: Json) -> tuple[str, str | None, str | None]:
    """Who requested, for whom, and who vouches for that."""
    found = request["metadata"].get("annotations", {})
    return stamp_of(request), found.get(BEHALF), found.get(VERIFIED)


class TestVouching:
    def test_m2_a_portal_vouches_for_whom_it_names(self, portal: Kube, namespace: str) -> None:
        assert behind(portal.create(asked(namespace, behalf="hal"))) == ("portal", "hal", "portal")
        assert behind(portal.create(asked(namespace))) == ("portal", None, None)

    @pytest.mark.parametrize("verified", [None, "alice", "portal"])
    def test_m2_a_name_in_a_file_is_a_claim(self, alice: Kube, namespace: str, verified: str | None) -> None:
        request = asked(namespace, behalf="hal", **({"verified": verified} if verified else {}))
        assert behind(alice.create(request)) == ("alice", "hal", None)

    def test_m2_a_right_to_everything_does_not_vouch(self, gitops: Kube, admin: Kube, namespace: str) -> None:
        for kube, name in ((gitops, "gitops"), (admin, "admin")):
            for verified in ({}, {"verified": name}):
                assert behind(kube.create(asked(namespace, behalf="hal", **verified))) == (name, "hal", None)

    def test_the_right_is_of_one_namespace(self, cluster: Running, admin: Kube, portal: Kube, namespace: str) -> None:
        other = policed_namespace(cluster)
        bind(
            admin,
            other,
            role="edit",
            subject={"kind": "User", "name": "portal"},
            until={"verb": "create", "resource": "databaseaccessrequests"},
        )
        assert behind(portal.create(asked(other, behalf="hal"))) == ("portal", "hal", None)

    @pytest.mark.parametrize("role", ["edit", "admin", "leasegate-requester", "leasegate-approver", "leasegate-team"])
    def test_no_other_role_vouches(self, admin: Kube, namespace: str, role: str) -> None:
        rules = admin.get("ClusterRole", role)["rules"]
        assert not [rule for rule in rules if {"impersonate", "*"} & set(rule["verbs"]) and _is_ours(rule)]

    def test_m2_nobody_forges_or_removes_it(self, alice: Kube, portal: Kube, gitops: Kube, namespace: str) -> None:
        claimed, vouched = alice.create(asked(namespace, behalf="hal")), portal.create(asked(namespace, behalf="hal"))
        for kube in (alice, gitops):
            for verified in ("alice", "gitops", "portal", "", None):
                change = annotated(verified=verified)
                assert behind(kube.patch(claimed, change)) == ("alice", "hal", None)
                assert behind(kube.patch(vouched, change)) == ("portal", "hal", "portal")
            assert "cannot be changed or removed" in refusal(kube, "patch", vouched, annotated(behalf="bob")).message

    def test_m2_a_replace_neither_loses_nor_changes_it(self, alice: Kube, portal: Kube, namespace: str) -> None:
        vouched = portal.create(asked(namespace, behalf="hal"))
        without = vouched | {"metadata": dict(vouched["metadata"]) | {"annotations": {BEHALF: "hal"}}}
        assert behind(alice.replace(without)) == ("portal", "hal", "portal")
        for changed in ({}, {BEHALF: "bob", VERIFIED: "portal"}):
            lost = vouched | {"metadata": dict(vouched["metadata"]) | {"annotations": changed}}
            assert "cannot be changed or removed" in refusal(alice, "replace", lost).message

    def test_m2_another_users_change_ends_it(self, alice: Kube, portal: Kube, namespace: str) -> None:
        vouched = portal.create(asked(namespace, behalf="hal"))
        assert behind(portal.patch(vouched, {"spec": {"ttl": "1h"}})) == ("portal", "hal", "portal")
        assert behind(alice.patch(vouched, {"spec": {"ttl": "2h"}})) == ("alice", "hal", None)
        assert behind(portal.patch(vouched, {"spec": {"ttl": "3h"}})) == ("portal", "hal", None)

    def test_m2_a_name_that_is_added_later_is_the_adders_claim(self, alice: Kube, portal: Kube, namespace: str) -> None:
        mine, theirs = alice.create(asked(namespace)), portal.create(asked(namespace))
        assert behind(portal.patch(mine, annotated(behalf="hal"))) == ("alice", "hal", "portal")
        assert behind(alice.patch(theirs, annotated(behalf="hal", verified="portal"))) == ("portal", "hal", None)

    def test_a_portal_vouches_afterwards(self, alice: Kube, portal: Kube, namespace: str) -> None:
        claimed = alice.create(asked(namespace, behalf="hal"))
        assert behind(portal.patch(claimed, {"metadata": {"labels": {"a": "b"}}})) == ("alice", "hal", None)
        assert behind(portal.patch(claimed, annotated(verified="other"))) == ("alice", "hal", None)
        assert behind(portal.patch(claimed, annotated(verified="portal"))) == ("alice", "hal", "portal")

    def test_there_is_nothing_to_vouch_for_without_a_name(self, portal: Kube, namespace: str) -> None:
        request = portal.create(asked(namespace, verified="portal"))
        assert behind(request) == ("portal", None, None)
        assert behind(portal.patch(request, annotated(verified="portal"))) == ("portal", None, None)

    def test_a_vouched_request_lives_on(self, portal: Kube, watcher: Kube, cluster: Running, namespace: str) -> None:
        """The watcher's finalizer and status, a label of anybody and a decision leave it as it is."""
        request = publish(watcher, portal.create(asked(namespace, behalf="hal")))
        watcher.patch(request, {"metadata": {"finalizers": ["leasegate.dev/finalizer"]}})
        decide(Kube(cluster, "bob"), request, approved("bob"))
        assert behind(watcher.patch(request, {"metadata": {"finalizers": None}})) == ("portal", "hal", "portal")


def _is_ours(rule: Json) -> bool:
    return "databaseaccessrequests" in rule.get("resources", []) or "*" in rule.get("resources", [])


class TestCopies:
    """A backup or GitOps: who asked before is behind the copy, and approves it no more than the first one."""

    @pytest.mark.parametrize("tool", ["alice", "gitops", "portal"])
    def test_m2_the_former_requester_is_behind_a_copy(
        self, cluster: Running, alice: Kube, gitops: Kube, portal: Kube, watcher: Kube, namespace: str, tool: str
    ) -> None:
        kube = {"alice": alice, "gitops": gitops, "portal": portal}[tool]
        copy = publish(watcher, kube.create(asked(namespace, stamp="bob", verified="portal")))
        assert behind(copy) == (tool, "bob", None)
        bob = Kube(cluster, "bob")
        says = "this request was made on behalf of bob, who may not approve it"
        assert says in refused_decision(bob, copy, approved("bob")).message
        with_name = kube.create(asked(namespace, behalf="hal", stamp="bob", verified=tool))
        assert behind(with_name) == (tool, "hal,bob", None)

    def test_m2_a_copy_keeps_whom_it_was_for(self, gitops: Kube, portal: Kube, namespace: str) -> None:
        former = portal.create(asked(namespace, behalf="hal,eve"))
        copy = {key: former[key] for key in ("apiVersion", "kind", "spec")} | {
            "metadata": {
                "name": f"copy-{secrets.token_hex(3)}",
                "namespace": namespace,
                "annotations": former["metadata"]["annotations"],
            }
        }
        assert behind(gitops.create(copy)) == ("gitops", "hal,eve,portal", None)

    def test_a_restored_status_counts_for_nothing(self, gitops: Kube, namespace: str) -> None:
        copy = asked(namespace, stamp="bob") | {"status": {"conditions": [approved("bob")], "phase": "Approved"}}
        assert "status" not in gitops.create(copy)

    def test_m2_a_name_with_a_comma_is_one_name(
        self, cluster: Running, admin: Kube, alice: Kube, watcher: Kube, namespace: str
    ) -> None:
        name, decides = "cn=zoe,ou=dba", {"resource": "databaseaccessrequests", "subresource": "approval"}
        bind(
            admin,
            namespace,
            role="leasegate-approver",
            subject={"kind": "User", "name": name},
            until=decides | {"verb": "update"},
        )
        copy = publish(watcher, alice.create(asked(namespace, stamp=name)))
        says = f"this request was made on behalf of {name}, who may not approve it"
        assert says in refused_decision(Kube(cluster, act_as=name), copy, approved(name)).message


class TestWithoutTheMutatingPolicy:
    """An older cluster: a portal writes the annotations itself, and nobody else can."""

    @pytest.fixture(autouse=True)
    def _without_it(self, cluster: Running, alice: Kube, namespace: str) -> Iterator[None]:
        file = str(POLICIES / "requester-stamp.yaml")
        cluster.kubectl("delete", "-f", file)
        eventually(lambda: not stamp_of(alice.create(a_request(namespace), dry_run=True)), what="no stamp any more")
        yield
        cluster.kubectl("apply", "-f", file)
        eventually(lambda: stamp_of(alice.create(a_request(namespace), dry_run=True)), what="a stamp again")

    def test_m2_the_word_is_ones_own_and_needs_the_right(
        self, alice: Kube, portal: Kube, gitops: Kube, admin: Kube, namespace: str
    ) -> None:
        vouched = portal.create(asked(namespace, behalf="hal", stamp="portal", verified="portal"))
        assert behind(vouched) == ("portal", "hal", "portal")
        for kube, name in ((alice, "alice"), (gitops, "gitops"), (admin, "admin")):
            for verified in (name, "portal"):
                forged = asked(namespace, behalf="hal", stamp=name, verified=verified)
                assert FALSE in refusal(kube, "create", forged).message
                claimed = kube.create(asked(namespace, behalf="hal", stamp=name))
                assert FALSE in refusal(kube, "patch", claimed, annotated(verified=verified)).message
            assert "cannot be removed" in refusal(kube, "patch", vouched, annotated(verified=None)).message
            assert FALSE in refusal(kube, "patch", vouched, annotated(verified=name)).message
            changed = annotated(stamp=name) | {"spec": {"ttl": "1h"}}
            assert FALSE in refusal(kube, "patch", vouched, changed).message
        assert FALSE in refusal(portal, "create", asked(namespace, behalf="hal", verified="alice")).message
        assert FALSE in refusal(portal, "create", asked(namespace, verified="portal")).message
        changed = annotated(stamp="alice", verified=None) | {"spec": {"ttl": "1h"}}
        assert behind(alice.patch(vouched, changed)) == ("alice", "hal", None)

    def test_m2_a_name_that_is_added_later_needs_a_word_of_its_own(
        self, alice: Kube, portal: Kube, namespace: str
    ) -> None:
        request = portal.create(asked(namespace, stamp="portal"))
        forged = annotated(behalf="hal", verified="portal")
        assert FALSE in refusal(alice, "patch", request, forged).message
        assert behind(portal.patch(request, forged)) == ("portal", "hal", "portal")

    def test_a_copy_is_refused(self, gitops: Kube, namespace: str) -> None:
        says = "leave the annotation out or set it to gitops"
        assert says in refusal(gitops, "create", asked(namespace, stamp="bob")).message


class TestCost:
    """F2: the largest objects pass, with both checks of the authorizer."""

    def test_the_largest_annotations_and_spec(self, portal: Kube, alice: Kube, namespace: str) -> None:
        subjects = [{"kind": "Group", "name": f"{'g' * 1000}{number:02}"} for number in range(64)]
        largest: dict[str, Any] = {"subjects": subjects, "reason": "r" * 1024, "ticket": "t" * 256}
        names = ",".join("n" * 250 for _ in range(32))
        request = a_request(namespace, **largest)
        request["metadata"]["annotations"] = {BEHALF: names, "other": "o" * 200_000}
        made = portal.create(request)
        assert behind(made) == ("portal", names, "portal")
        assert behind(portal.patch(made, {"spec": {"ttl": "1h"}})) == ("portal", names, "portal")
        too_long = asked(namespace, behalf="," * 32)
        assert "write at most 32 user names" in refusal(alice, "create", too_long).message
        assert "write at most 32 user names" in refusal(alice, "create", asked(namespace, stamp="s" * 8193)).message
