"""The few calls that this command makes to Kubernetes, each by one run of kubectl."""

from __future__ import annotations

import json
from typing import Protocol
from urllib.parse import quote, urlencode

from cli.kubectl_vault.decisions import Json
from cli.kubectl_vault.errors import CommandError, ConflictError
from cli.kubectl_vault.kubectl import KubectlError
from cli.kubectl_vault.resource import GROUP, PLURAL, VERSION, Named

_PAGE = 500
_UNREACHABLE = (
    "dial tcp",
    "was refused",
    "tls: ",
    "x509: ",
    "Client.Timeout",
    "no such host",
    "context deadline",
    "EOF",
)
_NO_KUBECONFIG = "current-context must exist in order to minify"


class Runner(Protocol):
    """Runs kubectl."""

    def run(self, *args: str) -> str:
        """Run one command and return its standard output, else raise KubectlError."""


class Cluster:
    """The cluster, as one user sees it."""

    def __init__(self, kubectl: Runner) -> None:
        """Keep kubectl; nothing is sent yet."""
        self._kubectl = kubectl

    def default_namespace(self) -> str:
        """The namespace of the kubeconfig's context."""
        try:
            found = self._kubectl.run("config", "view", "--minify", "--output=jsonpath={..namespace}")
        except KubectlError as err:
            if _NO_KUBECONFIG not in str(err):
                raise CommandError(f"the kubeconfig cannot be used: {err}") from err
            found = ""
        return found.strip() or "default"

    def get_user_name(self) -> str:
        """The user name by which the server knows the caller, which a decision has to carry."""
        what = "SelfSubjectReview, by which you learn your own user name"
        answer = self._run_json("auth", "whoami", "--output=json", what=what)
        return str(answer["status"]["userInfo"]["username"])

    def get_request(self, named: Named) -> Json:
        """Read one access request."""
        return self._run_json(
            "get", f"--raw={_collection(named.namespace)}/{quote(named.name, safe='')}", what=str(named)
        )

    def find_role(self, namespace: str, name: str) -> Json | None:
        """Read a PostgresRole; None if that is not possible."""
        path = f"/apis/{GROUP}/{VERSION}/namespaces/{quote(namespace, safe='')}/postgresroles/{quote(name, safe='')}"
        try:
            return self._run_json("get", f"--raw={path}", what="postgresrole")
        except CommandError:
            return None

    def list_requests(self, namespace: str) -> list[Json]:
        """Read all access requests of a namespace, or of all namespaces where it is empty, page by page."""
        what = f"{PLURAL} in " + (f'namespace "{namespace}"' if namespace else "all namespaces")
        found: list[Json] = []
        after = ""
        while True:
            query = urlencode({"limit": _PAGE, "continue": after})
            page = self._run_json("get", f"--raw={_collection(namespace)}?{query}", what=what)
            found += page["items"]
            after = page["metadata"].get("continue") or ""
            if not after:
                return found

    def write_conditions(self, named: Named, request: Json, conditions: list[Json]) -> None:
        """Replace the conditions of an access request that has not changed since it was read.

        Args:
            named: The access request.
            request: What was read.
            conditions: All of its conditions.

        Raises:
            ConflictError: It has changed.
            CommandError: The server refused.
        """
        patch = {
            "metadata": {"resourceVersion": request["metadata"]["resourceVersion"]},
            "status": {"conditions": conditions},
        }
        resource = f"{PLURAL}.{VERSION}.{GROUP}/{named.name}"
        options = ["--type=merge", "--subresource=status", "--output=name", f"--patch={json.dumps(patch)}"]
        try:
            self._kubectl.run("patch", resource, f"--namespace={named.namespace}", *options)
        except KubectlError as err:
            raise _refused(err, what=str(named)) from err

    def _run_json(self, *args: str, what: str) -> Json:
        try:
            output = self._kubectl.run(*args)
        except KubectlError as err:
            raise _refused(err, what=what) from err
        try:
            answer = json.loads(output)
        except ValueError:
            answer = None
        if not isinstance(answer, dict):  # a proxy, or no API server at all
            raise CommandError(f"the cluster answered {what} with no object: {' '.join(output[:300].split())}")
        return answer


def _collection(namespace: str) -> str:
    scope = f"namespaces/{quote(namespace, safe='')}/" if namespace else ""
    return f"/apis/{GROUP}/{VERSION}/{scope}{PLURAL}"


def _refused(err: KubectlError, *, what: str) -> CommandError:
    """The error with what to do about it."""
    text = str(err)
    if err.reason == "NotFound" and text.endswith("not found"):
        return CommandError(f"there is no {what}")
    if err.reason == "NotFound" or "doesn't have a resource type" in text:
        crds = "Are Leasegate's CustomResourceDefinitions (deploy/crds) installed there?"
        return CommandError(f"the cluster has no {what}: {text}. {crds}")
    if "Unauthorized" in (err.reason, text) or "(Unauthorized)" in text:
        return CommandError("the cluster does not know you: log in again, or check --context, --user and --token")
    if err.reason == "Conflict":
        return ConflictError(f"{what} was changed by somebody else at the same time: look at it and try again")
    if by_policy := text.partition("denied request: ")[2]:  # it says what to do; Kubernetes' own names stand before it
        return CommandError(f"{what}: {by_policy}")
    if not err.reason:  # no server answered
        reached = not any(sign in text for sign in _UNREACHABLE)
        return CommandError(
            text if reached else f"cannot reach the cluster: {text}. Is it up, and is this the right --context?"
        )
    hint = ". Approving takes the ClusterRole leasegate-approver: ask an administrator for a RoleBinding"
    return CommandError(f"the cluster refused {what}: {text}{hint if err.reason == 'Forbidden' else ''}")
