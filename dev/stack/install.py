"""Applies the manifests of deploy/ to a cluster and waits until the new kinds and policies work."""

from __future__ import annotations

import json
import time
from base64 import b64encode
from pathlib import Path
from typing import Any

from dev.stack.errors import StackError
from dev.stack.kubectl import Kubectl

DEPLOY = Path(__file__).parents[2] / "deploy"
NAMESPACE = "leasegate-system"
ENABLED_NAMESPACE = "enabled-namespace.yaml"  # applied to each namespace, not once for the cluster
NAMESPACE_QUOTA = "namespace-quota.yaml"  # an option of the same kind
FAST_RBAC = DEPLOY / "rbac" / "fast-rbac.yaml"  # an option
_PEOPLE = Path(__file__).parent / "people.yaml"
_STAMP = "leasegate.dev/requested-by"
_PROBE = "leasegate-install-probe"
_ENGINE_API = "engine.kubevault.com/v1alpha1"
_REFS = {"vaultRef": {"name": _PROBE}, "databaseRef": {"name": _PROBE, "namespace": NAMESPACE}}
_SPECS: dict[str, tuple[str, dict[str, Any]]] = {
    "AppBinding": ("appcatalog.appscode.com/v1alpha1", {"clientConfig": {"url": "https://probe.invalid:8200"}}),
    "SecretEngine": (
        _ENGINE_API,
        {"vaultRef": _REFS["vaultRef"], "path": "database", "postgres": {"databaseRef": _REFS["databaseRef"]}},
    ),
    "PostgresRole": (_ENGINE_API, _REFS | {"path": "database", "creationStatements": ["SELECT 1"]}),
    "DatabaseAccessRequest": (
        _ENGINE_API,
        {
            "roleRef": {"kind": "PostgresRole", "name": _PROBE, "namespace": NAMESPACE},
            "subjects": [{"kind": "ServiceAccount", "name": _PROBE, "namespace": NAMESPACE}],
        },
    ),
}
LAST_POLICY = "leasegate-watcher-rights"  # of those in manifests()
_FOREIGN_BINDING = {
    "apiVersion": "rbac.authorization.k8s.io/v1",
    "kind": "RoleBinding",
    "metadata": {"name": _PROBE, "namespace": NAMESPACE},
    "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "leasegate-enabled-namespace"},
    "subjects": [{"kind": "ServiceAccount", "name": _PROBE, "namespace": NAMESPACE}],
}
# The API server answers this for up to 3 s after a kind is established (a GET that succeeds proves nothing), and after
# a restart.
_NOT_YET = (
    "could not find the requested resource",
    "no matches for kind",
    "TooManyRequests",
    "ServiceUnavailable",
    "re)initializing",
    "not found",
)


def install(kubectl: Kubectl, *, local_people: bool) -> None:
    """Apply CRDs, policies and RBAC, and wait until the kinds can be created and the policies are in force.

    Args:
        kubectl: Acts as an administrator.
        local_people: Whether the groups ``dev`` and ``approvers`` get their RBAC roles, too.

    Raises:
        StackError: A manifest was refused, or a kind or the policies do not work after a minute.
    """
    files = manifests() + ([_PEOPLE] if local_people else [])
    kubectl.run("apply", "--server-side", "--force-conflicts", *(f"--filename={file}" for file in files))
    wait_for_kinds(kubectl)
    wait_for_policies(kubectl)


def manifests() -> list[Path]:
    """The manifests of a cluster in order: policies before RBAC, as they restrict verbs that RBAC grants."""
    found = [file for folder in ("crds", "policies", "rbac") for file in sorted((DEPLOY / folder).rglob("*.yaml"))]
    return [file for file in found if file.name not in (ENABLED_NAMESPACE, NAMESPACE_QUOTA) and file != FAST_RBAC]


def wait_for_kinds(kubectl: Kubectl, *, timeout_s: float = 60) -> None:
    """Create one object of each kind until that works, and delete it again."""
    end = time.monotonic() + timeout_s
    for kind in _SPECS:
        while not _works(kubectl, kind):
            if time.monotonic() > end:
                raise StackError(
                    f"no {kind} could be created (or was stamped by the admission policy) within {timeout_s:.0f} s"
                )
            time.sleep(0.1)


def wait_for_policies(kubectl: Kubectl, *, timeout_s: float = 60) -> None:
    """Retry what the last policy forbids until it is refused.

    The API server learns of policies in the order in which they were created.
    """
    end = time.monotonic() + timeout_s
    while not _refused_by_the_last_policy(kubectl):
        if time.monotonic() > end:
            raise StackError(f"the admission policies are not in force after {timeout_s:.0f} s")
        time.sleep(0.1)


def _refused_by_the_last_policy(kubectl: Kubectl) -> bool:
    made = kubectl.run("create", "--filename=-", "--dry-run=server", stdin=json.dumps(_FOREIGN_BINDING), check=False)
    if made.returncode and LAST_POLICY not in made.stderr:
        raise StackError(f"a RoleBinding was refused, but not by {LAST_POLICY}: {made.stderr.strip()[-400:]}")
    return made.returncode != 0


def _works(kubectl: Kubectl, kind: str) -> bool:
    api, spec = _SPECS[kind]
    probe = {"apiVersion": api, "kind": kind, "metadata": {"name": _PROBE, "namespace": NAMESPACE}, "spec": spec}
    made = kubectl.run(
        "create", "--filename=-", "--output=json", "--validate=false", stdin=json.dumps(probe), check=False
    )
    if made.returncode:
        if any(text in made.stderr for text in _NOT_YET):
            return False
        raise StackError(f"a plain {kind} was refused: {made.stderr.strip()[-400:]}")
    kubectl.run("delete", f"{kind.lower()}s", _PROBE, f"--namespace={NAMESPACE}", "--wait=true", "--ignore-not-found")
    return kind != "DatabaseAccessRequest" or _STAMP in (json.loads(made.stdout)["metadata"].get("annotations") or {})


def enabled_namespace(*, ca_bundle: bytes, namespace: str = "demo") -> str:
    """The manifest that enables a namespace, with the AppBinding and Services that the guide assumes.

    Args:
        ca_bundle: PEM of Vault's authority, for the guide's AppBinding.
        namespace: The namespace; it is to be given to kubectl, too.
    """
    product = (DEPLOY / "rbac" / ENABLED_NAMESPACE).read_text().strip()
    template = (Path(__file__).parent / f"{ENABLED_NAMESPACE}.tmpl").read_text()
    own = template.format(ca_bundle=b64encode(ca_bundle).decode(), namespace=namespace)
    return f"{product}\n---\n{own}"
