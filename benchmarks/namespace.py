"""One namespace with the guide's objects, used by the Kubernetes API alone: create, approve, delete, watch Secrets."""

from __future__ import annotations

import datetime
import json
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

from benchmarks.clients import together
from benchmarks.http import Json, Lines, RequestRefusedError, Server
from benchmarks.waiting import until
from benchmarks.watching import Watched, watching

_ENGINE = "/apis/engine.kubevault.com/v1alpha1/namespaces"
_CLIENTS = 8
_PAGE = 1000


class Namespace:
    """A namespace and whoever acts in it, an administrator."""

    def __init__(self, kube: Server, name: str, *, user: str, prepared: Callable[[], None]) -> None:
        """Describe it; it is made by ``benchmarks.place``.

        Args:
            kube: The API server.
            name: Its name.
            user: Who acts.
            prepared: Waits until the tokens of all requests are made.
        """
        self.kube, self.name, self._user, self._prepared = kube, name, user, prepared
        self._requests = f"{_ENGINE}/{name}/databaseaccessrequests"
        self._secrets = f"/api/v1/namespaces/{name}/secrets"

    def create(self, role: str, names: Sequence[str]) -> dict[str, bytes]:
        """Make requests, and wait until each says what would be granted and its token is made.

        Returns:
            The bodies that approve them, made beforehand as a client has them when a person decides.
        """
        with self._watched(self._requests, _digested) as watched:
            together(_CLIENTS, lambda name: self.kube.call("POST", self._requests, self._request(role, name)), names)
            watched.wait(names, timeout_s=300)
            self._prepared()
            return {name: self._approved(watched.newest[name]) for name in names}

    def approve(self, name: str, body: bytes) -> tuple[float, float]:
        """Write the decision as status and answer when it was sent and written; a conflict reads the status again."""
        while True:
            sent = time.perf_counter()
            try:
                self.kube.send("PUT", f"{self._requests}/{name}/status", body)
            except RequestRefusedError as err:
                if err.status != 409:
                    raise
                body = self._approved(self.kube.call("GET", f"{self._requests}/{name}"))
            else:
                return sent, time.perf_counter()

    def approve_all(self, bodies: dict[str, bytes], *, clients: int) -> float:
        """Approve all at once with several clients; answers when the first was sent."""
        began = time.perf_counter()
        together(clients, lambda item: self.approve(*item), list(bodies.items()))
        return began

    def delete(self, name: str) -> float:
        """Delete a request; answers when that was answered."""
        self.kube.send("DELETE", f"{self._requests}/{name}")
        return time.perf_counter()

    def clear(self) -> None:
        """Delete all requests and wait until they are gone."""
        names = [item["metadata"]["name"] for item in self.requests()]
        together(_CLIENTS, self.delete, names)
        until(lambda: not self.requests(), timeout_s=60 + len(names) * 0.1, what="the end of all requests", every_s=0.5)

    def requests(self) -> list[Json]:
        """All requests."""
        return self._list(self._requests)

    def secret_versions(self) -> dict[str, str]:
        """The resourceVersion of each Secret."""
        return {item["metadata"]["name"]: item["metadata"]["resourceVersion"] for item in self._list(self._secrets)}

    @contextmanager
    def secrets_watched(self) -> Iterator[Watched]:
        """Note when each request's Secret can be read."""
        with self._watched(self._secrets, _owner_of_secret) as watched:
            yield watched

    @contextmanager
    def requests_watched(self) -> Iterator[Watched]:
        """Note when each request's status names its Secret, and when it is gone."""
        with self._watched(self._requests, _settled_request) as watched:
            yield watched

    @contextmanager
    def readers_watched(self) -> Iterator[Watched]:
        """Note when each request's RoleBinding is there: with the status, the last that is written for it."""
        with self._watched(
            f"/apis/rbac.authorization.k8s.io/v1/namespaces/{self.name}/rolebindings", _owner
        ) as watched:
            yield watched

    @contextmanager
    def _watched(self, path: str, name_of: Callable[[Json], str]) -> Iterator[Watched]:
        version = self.kube.call("GET", f"{path}?limit=1")["metadata"]["resourceVersion"]

        def follow(after: str) -> Lines:
            return self.kube.follow(f"{path}?watch=true&resourceVersion={after}&timeoutSeconds=3000")

        with watching(follow, name_of, version=version) as watched:
            yield watched

    def _list(self, path: str) -> list[Json]:
        found: list[Json] = []
        token = ""
        while True:
            page = self.kube.call("GET", f"{path}?limit={_PAGE}&continue={token}")
            found += page["items"]
            token = page["metadata"].get("continue", "")
            if not token:
                return found

    def _request(self, role: str, name: str) -> Json:
        spec = {
            "roleRef": {"kind": "PostgresRole", "name": role, "namespace": self.name},
            "subjects": [{"kind": "ServiceAccount", "name": "demo-sa", "namespace": self.name}],
        }
        return {
            "apiVersion": "engine.kubevault.com/v1alpha1",
            "kind": "DatabaseAccessRequest",
            "metadata": {"name": name, "namespace": self.name},
            "spec": spec,
        }

    def _approved(self, request: Json) -> bytes:
        now = datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
        decision = {
            "type": "Approved",
            "status": "True",
            "reason": "Benchmark",
            "message": "approved by the benchmark",
            "lastUpdateTime": now,
            "lastTransitionTime": now,
            "observedGeneration": request["metadata"]["generation"],
            "approver": self._user,
            "digest": request["status"]["digest"],
        }
        status = {**request["status"], "conditions": [*(request["status"].get("conditions") or []), decision]}
        return json.dumps({**request, "status": status}).encode()


def _owner(item: Json) -> str:
    owners = item["metadata"].get("ownerReferences") or [{}]
    return str(owners[0].get("name", ""))


def _owner_of_secret(secret: Json) -> str:
    return _owner(secret) if (secret.get("data") or {}).get("password") else ""


def _digested(request: Json) -> str:
    return str(request["metadata"]["name"]) if (request.get("status") or {}).get("digest") else ""


def _settled_request(request: Json) -> str:
    return str(request["metadata"]["name"]) if (request.get("status") or {}).get("secret") else ""
