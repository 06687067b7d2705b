"""Objects of the four kinds, and a client that writes them as one user of the fixture ``cluster``.

A call takes milliseconds where kubectl takes a tenth of a second.
"""

from __future__ import annotations

import copy
import json
import secrets
from pathlib import Path
from typing import Any, Protocol

import urllib3
from kubernetes import client, config

from tests.eventually import eventually

Json = dict[str, Any]
ENGINE = "engine.kubevault.com/v1alpha1"
CATALOG = "appcatalog.appscode.com/v1alpha1"
WATCHER = "system:serviceaccount:leasegate-system:leasegate-watcher"
STAMP = "leasegate.dev/requested-by"
EXAMPLES = Path(__file__).parents[2] / "docs/examples/guides/secret-engines/postgres"
_PLURALS = {
    "AppBinding": f"apis/{CATALOG}/%appbindings",
    "SecretEngine": f"apis/{ENGINE}/%secretengines",
    "PostgresRole": f"apis/{ENGINE}/%postgresroles",
    "DatabaseAccessRequest": f"apis/{ENGINE}/%databaseaccessrequests",
    "Secret": "api/v1/%secrets",
    "ServiceAccount": "api/v1/%serviceaccounts",
    "Event": "api/v1/%events",
    "Namespace": "api/v1/namespaces",
    "Role": "apis/rbac.authorization.k8s.io/v1/%roles",
    "RoleBinding": "apis/rbac.authorization.k8s.io/v1/%rolebindings",
    "ClusterRole": "apis/rbac.authorization.k8s.io/v1/clusterroles",
    "ClusterRoleBinding": "apis/rbac.authorization.k8s.io/v1/clusterrolebindings",
    "SubjectAccessReview": "apis/authorization.k8s.io/v1/subjectaccessreviews",
}


class Running(Protocol):
    """The parts of the fixture ``cluster`` that these tests use."""

    @property
    def kubeconfig(self) -> Path:
        """Contexts admin (system:masters), alice (group dev), bob (group approvers), carol (no group)."""

    def kubectl(self, *args: str, context: str = "admin", input: str | None = None, check: bool = True) -> Any:
        """Run kubectl; answers a CompletedProcess of text."""


class RefusedError(AssertionError):
    """The API server refused a call."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(f"{status}: {message}")
        self.status, self.message = status, message


class Kube:
    """The API server, called as one user."""

    def __init__(
        self,
        cluster: Running,
        context: str = "admin",
        *,
        act_as: str = "",
        groups: tuple[str, ...] = (),
        token: str = "",
    ) -> None:
        library: Any = config  # untyped
        api = library.new_client_from_config(config_file=str(cluster.kubeconfig), context=context)
        self._rest, self._host = api.rest_client, api.configuration.host
        self._headers = urllib3.HTTPHeaderDict({"Accept": "application/json"})
        if token:
            configuration = client.Configuration(host=self._host)
            configuration.ssl_ca_cert = api.configuration.ssl_ca_cert
            self._rest = client.ApiClient(configuration).rest_client
        if bearer := f"Bearer {token}" if token else api.configuration.get_api_key_with_prefix("BearerToken"):
            self._headers["Authorization"] = bearer
        for key, value in (("Impersonate-User", act_as), *(("Impersonate-Group", group) for group in groups)):
            if value:
                self._headers.add(key, value)

    def create(self, thing: Json, *, dry_run: bool = False) -> Json:
        """Create, with unknown fields refused as kubectl has it; a new kind is tried again until it works."""
        query = "fieldValidation=Strict" + ("&dryRun=All" if dry_run else "")
        path = f"{_path(thing['kind'], thing.get('metadata', {}).get('namespace', ''))}?{query}"
        return eventually(lambda: self._unless_new(path, thing), timeout_s=20, what=f"the kind {thing['kind']}") or {}

    def get(self, kind: str, name: str, namespace: str = "") -> Json:
        return self.call("GET", f"{_path(kind, namespace)}/{name}")

    def patch(self, thing: Json, change: Json, *, status: bool = False, dry_run: bool = False) -> Json:
        """Merge a change into the object, or into its status."""
        metadata = thing["metadata"]
        path = f"{_path(thing['kind'], metadata.get('namespace', ''))}/{metadata['name']}{'/status' if status else ''}"
        return self.call("PATCH", f"{path}?fieldValidation=Strict{'&dryRun=All' if dry_run else ''}", change)

    def replace(self, thing: Json, *, status: bool = False, dry_run: bool = False) -> Json:
        metadata = thing["metadata"]
        path = f"{_path(thing['kind'], metadata.get('namespace', ''))}/{metadata['name']}{'/status' if status else ''}"
        return self.call("PUT", f"{path}{'?dryRun=All' if dry_run else ''}", thing)

    def delete(self, kind: str, name: str, namespace: str = "") -> Json:
        return self.call("DELETE", f"{_path(kind, namespace)}/{name}")

    def call(self, method: str, path: str, body: Json | None = None) -> Json:
        headers = self._headers.copy()
        headers["Content-Type"] = "application/merge-patch+json" if method == "PATCH" else "application/json"
        answer = self._rest.request(method, f"{self._host}/{path}", headers=headers, body=body)
        content: Json = json.loads(answer.read())
        if answer.status >= 300:
            raise RefusedError(answer.status, content.get("message", ""))
        return content

    def _unless_new(self, path: str, thing: Json) -> Json | None:
        try:
            return self.call("POST", path, thing)
        except RefusedError as refused:
            if refused.status in (429, 503) or refused.message == "404 page not found":
                return None
            raise _FinalError(refused) from refused


class _FinalError(Exception):
    """Carries a refusal past ``eventually``, which takes an AssertionError for "not yet"."""


def refusal(kube: Kube, action: str, *args: Any, **kwargs: Any) -> RefusedError:
    """Call a method that has to be refused, and return its error."""
    try:
        done = getattr(kube, action)(*args, **kwargs)
    except RefusedError as refused:
        return refused
    except _FinalError as final:
        return final.args[0]  # type: ignore[no-any-return]
    raise AssertionError(f"{action} was allowed: {done.get('metadata', done)}")


def _path(kind: str, namespace: str) -> str:
    return _PLURALS[kind].replace("%", f"namespaces/{namespace}/" if namespace else "")


class Can:
    """Asks the API server's authorizer about one user."""

    def __init__(self, admin: Kube, *, user: str, groups: tuple[str, ...] = ()) -> None:
        self._admin, self._who = admin, {"user": user, "groups": list(groups)}

    def __call__(
        self,
        verb: str,
        resource: str,
        *,
        group: str = "engine.kubevault.com",
        namespace: str = "",
        name: str = "",
        subresource: str = "",
    ) -> bool:
        asked = {
            "verb": verb,
            "resource": resource,
            "group": group,
            "namespace": namespace,
            "name": name,
            "subresource": subresource,
        }
        review = {
            "apiVersion": "authorization.k8s.io/v1",
            "kind": "SubjectAccessReview",
            "spec": self._who | {"resourceAttributes": asked},
        }
        return bool(self._admin.create(review)["status"]["allowed"])


def new_namespace(cluster: Running) -> str:
    """Create a namespace for one test or module, with dev and approvers bound to their ClusterRoles there."""
    kube, name = Kube(cluster), f"t-{secrets.token_hex(4)}"
    kube.create({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}})
    asks = {"verb": "create", "resource": "databaseaccessrequests"}
    decides = {"verb": "update", "resource": "databaseaccessrequests", "subresource": "approval"}
    bind(kube, name, role="edit", subject={"kind": "Group", "name": "dev"}, until=asks)
    bind(kube, name, role="leasegate-approver", subject={"kind": "Group", "name": "approvers"}, until=decides)
    return name


def bind(kube: Kube, namespace: str, *, role: str, subject: Json, until: Json) -> None:
    """Bind a ClusterRole to a User or Group in a namespace, and wait until the right ``until`` is in force."""
    kube.create(
        {
            "apiVersion": "rbac.authorization.k8s.io/v1",
            "kind": "RoleBinding",
            "metadata": {"namespace": namespace, "generateName": f"{role}-"},
            "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": role},
            "subjects": [{"apiGroup": "rbac.authorization.k8s.io"} | subject],
        }
    )
    groups = (subject["name"],) if subject["kind"] == "Group" else ()
    can = Can(kube, user="anybody" if groups else subject["name"], groups=groups)
    eventually(lambda: can(**until, namespace=namespace), what=f"{role} in force")


def an_app_binding(namespace: str, **spec: Any) -> Json:
    return _object(CATALOG, "AppBinding", namespace, {"clientConfig": {"url": "postgresql://db:5432/app"}} | spec)


def an_engine(namespace: str, **spec: Any) -> Json:
    postgres = {"databaseRef": {"name": "postgres-app", "namespace": namespace}}
    return _object(ENGINE, "SecretEngine", namespace, {"vaultRef": {"name": "vault"}, "postgres": postgres} | spec)


def a_role(namespace: str, **spec: Any) -> Json:
    database = {"name": "postgres-app", "namespace": namespace}
    plain = {"vaultRef": {"name": "vault"}, "databaseRef": database, "creationStatements": ["CREATE ROLE x;"]}
    return _object(ENGINE, "PostgresRole", namespace, plain | spec)


def a_request(namespace: str, **spec: Any) -> Json:
    role = {"kind": "PostgresRole", "name": "psql-role", "namespace": namespace}
    subjects = [{"kind": "ServiceAccount", "name": "demo-sa", "namespace": namespace}]
    return _object(ENGINE, "DatabaseAccessRequest", namespace, {"roleRef": role, "subjects": subjects} | spec)


def _object(version: str, kind: str, namespace: str, spec: Json) -> Json:
    name = f"{kind.lower()}-{secrets.token_hex(4)}"
    return {
        "apiVersion": version,
        "kind": kind,
        "metadata": {"name": name, "namespace": namespace},
        "spec": copy.deepcopy(spec),
    }


def with_value(thing: Json, path: str, value: Any) -> Json:
    """A copy with one value set, such as ``spec.subjects.0.kind``; ``...`` removes it."""
    changed = copy.deepcopy(thing)
    *way, last = [int(part) if part.isdigit() else part for part in path.split(".")]
    place: Any = changed
    for step in way:
        place = place[step] if isinstance(step, int) else place.setdefault(step, {})
    if value is ...:
        del place[last]
    else:
        place[last] = value
    return changed


DIGEST, OTHER_DIGEST = "d1" * 32, "d2" * 32
"""Digests that a status shows."""


def publish(kube: Kube, request: Json, **status: Any) -> Json:
    """Write a status as the watcher does at its first reconcile."""
    generation = kube.get("DatabaseAccessRequest", request["metadata"]["name"], request["metadata"]["namespace"])[
        "metadata"
    ]["generation"]
    seen = {"observedGeneration": generation, "phase": "WaitingForApproval", "digest": DIGEST}
    return kube.patch(request, {"status": seen | status}, status=True)
