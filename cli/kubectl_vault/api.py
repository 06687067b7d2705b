"""The few calls that this command makes to Kubernetes. The only module here that opens a connection."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from typing import Any
from urllib.parse import quote, urlencode

import urllib3
from kubernetes.client.exceptions import ApiException
from kubernetes.client.rest import RESTClientObject

from cli.kubectl_vault.decisions import Json
from cli.kubectl_vault.kubeconfig import Access
from cli.kubectl_vault.problem import CommandError, ConflictError
from cli.kubectl_vault.resource import GROUP, PLURAL, VERSION, Named

_PAGE = 500
_MERGE_PATCH = "application/merge-patch+json"
_BY_POLICY = re.compile(r"^Validation failed for ValidatingAdmissionPolicy '[^']*' with binding '[^']*': ")
_BY_URLLIB3 = re.compile(r"^\S*Connection\(host=.*?\): ")


class Api:
    """The cluster, as one user sees it."""

    def __init__(self, access: Access, *, timeout_s: float, warn: Callable[[str], None]) -> None:
        """Prepare; nothing is sent yet.

        Args:
            access: The cluster and the login.
            timeout_s: Seconds that one call may take.
            warn: Told each warning of the server.
        """
        self._access, self._timeout_s, self._warn = access, timeout_s, warn
        if not access.configuration.verify_ssl:
            urllib3.disable_warnings(urllib3.exceptions.InsecureRequestWarning)  # it was asked for
        self._rest: Any = RESTClientObject(access.configuration)  # untyped

    def whoami(self) -> str:
        """The user name by which the server knows the caller, which a decision has to carry."""
        review = {"apiVersion": "authentication.k8s.io/v1", "kind": "SelfSubjectReview"}
        path = "/apis/authentication.k8s.io/v1/selfsubjectreviews"
        answer = self._call("POST", path, review, what="SelfSubjectReview, by which you learn your own user name")
        return str(answer["status"]["userInfo"]["username"])

    def read(self, named: Named) -> Json:
        """Read one request."""
        return dict(self._call("GET", _path(named), what=str(named)))

    def read_all(self, namespace: str) -> list[Json]:
        """Read all requests of a namespace, or of all namespaces where it is empty, page by page."""
        what = f"{PLURAL} in " + (f'namespace "{namespace}"' if namespace else "all namespaces")
        found: list[Json] = []
        after = ""
        while True:
            query = urlencode({"limit": _PAGE, "continue": after})
            page = self._call("GET", f"{_collection(namespace)}?{query}", what=what)
            found += page["items"]
            after = page["metadata"].get("continue") or ""
            if not after:
                return found

    def write_conditions(self, named: Named, request: Json, conditions: list[Json]) -> None:
        """Replace the conditions of a request that is still as it was read.

        Raises:
            Conflict: Somebody changed it meanwhile.
            Problem: The server refused.
        """
        patch = {
            "metadata": {"resourceVersion": request["metadata"]["resourceVersion"]},
            "status": {"conditions": conditions},
        }
        self._call("PATCH", f"{_path(named)}/status", patch, what=str(named))

    def _call(self, method: str, path: str, body: Json | None = None, *, what: str) -> Any:
        host = self._access.configuration.host
        try:
            answer = self._rest.request(
                method, host + path, headers=self._headers(method), body=body, _request_timeout=self._timeout_s
            )
            content = answer.read()
        except (urllib3.exceptions.HTTPError, ApiException, OSError) as err:
            raise CommandError(
                f"can not reach the cluster at {host}: {_reason(err)}. Is it up, and is this the right --context?"
            ) from err
        if answer.status < 300:  # what is refused is told as a problem
            for warning in answer.headers.getlist("Warning"):
                self._warn(_warning_text(warning))
        return _decode(answer.status, content, what=what)

    def _headers(self, method: str) -> urllib3.HTTPHeaderDict:
        headers = urllib3.HTTPHeaderDict({"Accept": "application/json", "User-Agent": "kubectl-vault"})
        headers["Content-Type"] = _MERGE_PATCH if method == "PATCH" else "application/json"
        if token := self._access.configuration.get_api_key_with_prefix("BearerToken"):
            headers["Authorization"] = token
        for key, value in self._access.impersonate:
            headers.add(key, value)  # several groups are as many headers
        return headers


def _collection(namespace: str) -> str:
    scope = f"namespaces/{quote(namespace, safe='')}/" if namespace else ""
    return f"/apis/{GROUP}/{VERSION}/{scope}{PLURAL}"


def _path(named: Named) -> str:
    return f"{_collection(named.namespace)}/{quote(named.name, safe='')}"


def _decode(status: int, content: bytes, *, what: str) -> Any:
    try:
        answer = json.loads(content)
    except ValueError:
        answer = content[:300].decode(errors="replace").strip()
    if not isinstance(answer, dict):  # a proxy, or no API server at all
        raise _refused(status, {"message": f"HTTP {status} {answer}"}, what=what)
    if status >= 300:
        raise _refused(status, answer, what=what)
    return answer


def _refused(status: int, answer: Json, *, what: str) -> CommandError:
    said = " ".join(str(answer.get("message") or f"HTTP {status}").split())
    if status == 404 and not (answer.get("details") or {}).get("name"):
        return CommandError(
            f"the cluster knows no {what}: {said}. Are Leasegate's CustomResourceDefinitions (deploy/crds) installed there?"
        )
    if status == 404:
        return CommandError(f"there is no {what}")
    if status == 401:
        return CommandError("the cluster does not know you: log in anew, or check --context, --user and --token")
    if status == 409:
        return ConflictError(f"{what} was changed by somebody else at the same time: look at it and try again")
    if by_policy := said.partition("denied request: ")[
        2
    ]:  # it tells what to do; Kubernetes puts its own names before it
        return CommandError(f"{what}: {by_policy}")
    hint = (
        ". Approving takes the ClusterRole leasegate-approver: ask an administrator for a RoleBinding"
        if status == 403
        else ""
    )
    return CommandError(f"the cluster refused {what}: {said}{hint}")


def _warning_text(header: str) -> str:
    """Read ``299 - "text"`` (RFC 7234, section 5.5), without what Kubernetes puts before a policy's own words."""
    text = header.partition('"')[2].rpartition('"')[0].replace('\\"', '"') or header
    return _BY_POLICY.sub("", text)


def _reason(err: BaseException) -> str:
    text = " ".join(str(getattr(err, "reason", None) or err).split())
    return _BY_URLLIB3.sub("", text)
