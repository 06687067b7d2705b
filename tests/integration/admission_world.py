"""What the tests of admission share: a namespace in which the policies are in force, people, and decisions."""

from __future__ import annotations

import secrets
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tests.eventually import eventually
from tests.integration.kube import (
    DIGEST,
    STAMP,
    Can,
    Json,
    Kube,
    RefusedError,
    Running,
    a_request,
    new_namespace,
    refusal,
)

DEPLOY = Path(__file__).parents[2] / "deploy"
POLICIES = DEPLOY / "policies"
RBAC_API = "rbac.authorization.k8s.io"


def policed_namespace(cluster: Running) -> str:
    """A new enabled namespace, once the policies are in force: they take a moment to reach the API server's cache."""
    name, admin = new_namespace(cluster), Kube(cluster)
    cluster.kubectl("apply", "-n", name, "-f", str(DEPLOY / "rbac/enabled-namespace.yaml"))
    probe = admin.create(a_request(name))
    forged = {"status": {"conditions": [{"type": "Approved", "approver": "nobody"}]}}
    for refused in (
        lambda: "approver" in refusal(admin, "patch", probe, forged, status=True, dry_run=True).message,
        lambda: (
            "other"
            not in stamp_of(
                admin.create(a_request(name) | {"metadata": named("probe", name, STAMP, "other")}, dry_run=True)
            )
        ),
    ):
        eventually(refused, what="policies in force")
    return name


def named(name: str, namespace: str, key: str, value: str) -> Json:
    """Metadata with one annotation."""
    return {"name": name, "namespace": namespace, "annotations": {key: value}}


def stamp_of(thing: Json) -> str:
    """Who requested it, as the policy says."""
    return str(thing["metadata"].get("annotations", {}).get(STAMP, ""))


def approved(approver: str, *, digest: str = DIGEST, **members: Any) -> Json:
    return (
        {"type": "Approved", "status": "True", "approver": approver} | ({"digest": digest} if digest else {}) | members
    )


def denied(approver: str, **members: Any) -> Json:
    return {"type": "Denied", "status": "True", "approver": approver} | members


def decide(kube: Kube, request: Json, *conditions: Json) -> Json:
    return kube.patch(request, {"status": {"conditions": list(conditions)}}, status=True)


def refused_decision(kube: Kube, request: Json, *conditions: Json) -> RefusedError:
    return refusal(kube, "patch", request, {"status": {"conditions": list(conditions)}}, status=True)


def a_rule(resource: str, *verbs: str, group: str = "engine.kubevault.com", names: Sequence[str] = ()) -> Json:
    """One rule of a Role."""
    return {"apiGroups": [group], "resources": [resource], "verbs": list(verbs)} | (
        {"resourceNames": list(names)} if names else {}
    )


def grant(admin: Kube, user: str, rule: Json, *, namespace: str = "") -> None:
    """Give a user the right of one rule, in a namespace or cluster-wide, and wait until it is in force."""
    name = f"t-{secrets.token_hex(4)}"
    scope, meta = ("", {"name": name}) if not namespace else ("Role", {"name": name, "namespace": namespace})
    kind = scope or "ClusterRole"
    api = f"{RBAC_API}/v1"
    admin.create({"apiVersion": api, "kind": kind, "metadata": meta, "rules": [rule]})
    admin.create(
        {
            "apiVersion": api,
            "kind": f"{kind}Binding",
            "metadata": meta,
            "roleRef": {"apiGroup": RBAC_API, "kind": kind, "name": name},
            "subjects": [{"apiGroup": RBAC_API, "kind": "User", "name": user}],
        }
    )
    resource, _, subresource = rule["resources"][0].partition("/")
    can = Can(admin, user=user)
    eventually(
        lambda: can(
            rule["verbs"][0],
            resource,
            group=rule["apiGroups"][0],
            namespace=namespace,
            subresource=subresource,
            name=(rule.get("resourceNames") or [""])[0],
        ),
        what=f"the right of {user}",
    )
