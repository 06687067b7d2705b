"""The Kubernetes API over HTTP: the only module of the watcher that calls it.

Bodies are plain JSON: the official client's typed models do not have Leasegate's kinds, and cost more than the call.
An error's text never quotes a sent body.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any, Protocol
from urllib.parse import urlencode

import urllib3

from watcher.kube.connection import Connection
from watcher.kube.resources import Body, Resource

REQUEST_TIMEOUT_S = 10.0
TEXT_CHARS = 400


class KubeError(Exception):
    """The API server refused a call, or did not answer (status 0).

    Attributes:
        status: HTTP status; 0 without an answer, so that the effect of the call is unknown.
        reason: Kubernetes' reason, such as ``NotFound``, ``Conflict``, ``Expired``.
        causes: Reasons of the causes, such as ``NamespaceTerminating``.
    """

    def __init__(self, message: str, *, status: int, reason: str = "", causes: tuple[str, ...] = ()) -> None:
        super().__init__(message)
        self.message = message
        self.status = status
        self.reason = reason
        self.causes = causes

    @property
    def is_terminating(self) -> bool:
        """Whether the namespace is being deleted, so that nothing can be created in it."""
        return "NamespaceTerminating" in self.causes or "because it is being terminated" in self.message

    @property
    def is_passing(self) -> bool:
        """Whether the API server did not answer, or could not for the moment, which says nothing about the call."""
        return self.status in (0, 429) or self.status >= 500

    @property
    def is_policy_refusal(self) -> bool:
        """Whether an admission policy or webhook refused the call: RBAC permits it, whatever the status is."""
        return any(sign in self.message for sign in ("denied request: ", "denied the request: "))


class KubeClient(Protocol):
    """The calls that the watcher makes to Kubernetes."""

    def page(
        self,
        resource: Resource,
        *,
        namespace: str = "",
        limit: int = 500,
        token: str = "",
        fields: str = "",
        labels: str = "",
    ) -> Body:
        """Read one page of a list; ``token`` continues the page before, ``fields`` and ``labels`` are selectors."""
        ...

    def watch(
        self,
        resource: Resource,
        *,
        namespace: str = "",
        version: str,
        fields: str = "",
        server_s: int,
        silence_s: float,
    ) -> Iterator[Body]:
        """Yield events after ``version``, bookmarks included.

        Args:
            resource: The kind.
            namespace: The one namespace; empty for all.
            version: The resourceVersion of the list or event before.
            fields: Field selector.
            server_s: Seconds after which the server ends the watch.
            silence_s: Seconds without any data after which the watch fails.

        Raises:
            KubeError: The server refused the watch, or the connection broke.
        """
        ...

    def get(self, resource: Resource, *, namespace: str = "", name: str) -> Body:
        """Read one object."""
        ...

    def create(
        self,
        resource: Resource,
        body: Body,
        *,
        namespace: str,
        name: str = "",
        subresource: str = "",
        dry_run: bool = False,
    ) -> Body:
        """Create an object, or post to a subresource of ``name``; ``dry_run`` has it admitted, and stores nothing."""
        ...

    def replace(self, resource: Resource, body: Body, *, subresource: str = "", dry_run: bool = False) -> Body:
        """Replace an object that is still at the resourceVersion of ``body``."""
        ...

    def patch(self, resource: Resource, body: Body, *, namespace: str, name: str, dry_run: bool = False) -> Body:
        """Apply a merge patch, which replaces whole lists; one with a resourceVersion applies to that version only."""
        ...

    def delete(self, resource: Resource, *, namespace: str, name: str, uid: str = "", version: str = "") -> None:
        """Delete an object; with ``uid`` only the object of that uid, with ``version`` only that resourceVersion."""
        ...


class HttpKubeClient:
    """The Kubernetes API over HTTP/1.1 on kept-alive connections. Safe for threads."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def page(
        self,
        resource: Resource,
        *,
        namespace: str = "",
        limit: int = 500,
        token: str = "",
        fields: str = "",
        labels: str = "",
    ) -> Body:
        """GET on a collection."""
        query = {"limit": str(limit), "continue": token, "fieldSelector": fields, "labelSelector": labels}
        return self._call("GET", resource.path(namespace), query=query)

    def watch(
        self,
        resource: Resource,
        *,
        namespace: str = "",
        version: str,
        fields: str = "",
        server_s: int,
        silence_s: float,
    ) -> Iterator[Body]:
        """GET on a collection with ``watch=true``."""
        query = {
            "watch": "true",
            "allowWatchBookmarks": "true",
            "resourceVersion": version,
            "timeoutSeconds": str(server_s),
            "fieldSelector": fields,
        }
        timeout = urllib3.Timeout(connect=REQUEST_TIMEOUT_S, read=silence_s)
        answer = self._send("GET", resource.path(namespace), query=query, timeout=timeout)
        try:
            if answer.status != 200:
                raise _error(answer.status, answer.data)
            yield from _lines(answer)
        except urllib3.exceptions.HTTPError as err:
            raise KubeError(f"the watch broke: {type(err).__name__}", status=0) from err
        finally:
            answer.close()

    def get(self, resource: Resource, *, namespace: str = "", name: str) -> Body:
        """GET on an object."""
        return self._call("GET", resource.path(namespace, name))

    def create(
        self,
        resource: Resource,
        body: Body,
        *,
        namespace: str,
        name: str = "",
        subresource: str = "",
        dry_run: bool = False,
    ) -> Body:
        """POST to a collection, or to a subresource of an object."""
        return self._call("POST", resource.path(namespace, name, subresource), body=body, query=_dry_run(dry_run))

    def replace(self, resource: Resource, body: Body, *, subresource: str = "", dry_run: bool = False) -> Body:
        """PUT on an object or one of its subresources."""
        path = resource.path(body["metadata"]["namespace"], body["metadata"]["name"], subresource)
        return self._call("PUT", path, body=body, query=_dry_run(dry_run))

    def patch(self, resource: Resource, body: Body, *, namespace: str, name: str, dry_run: bool = False) -> Body:
        """PATCH on an object, as ``application/merge-patch+json``."""
        return self._call(
            "PATCH",
            resource.path(namespace, name),
            body=body,
            query=_dry_run(dry_run),
            content_type="application/merge-patch+json",
        )

    def delete(self, resource: Resource, *, namespace: str, name: str, uid: str = "", version: str = "") -> None:
        """DELETE on an object, with those preconditions that are given."""
        body: Body = {"apiVersion": "v1", "kind": "DeleteOptions"}
        preconditions = {"uid": uid, "resourceVersion": version}
        body["preconditions"] = {name: value for name, value in preconditions.items() if value}
        self._call("DELETE", resource.path(namespace, name), body=body)

    def _call(
        self,
        method: str,
        path: str,
        *,
        body: Body | None = None,
        query: Mapping[str, str] | None = None,
        content_type: str = "",
    ) -> Body:
        answer = self._send(method, path, body=body, query=query, content_type=content_type)
        try:
            data = answer.data
        except urllib3.exceptions.HTTPError as err:
            raise KubeError(f"the connection to Kubernetes broke: {type(err).__name__}", status=0) from err
        finally:
            answer.release_conn()
        if answer.status >= 300:
            raise _error(answer.status, data)
        found: Body = json.loads(data)
        return found

    def _send(
        self,
        method: str,
        path: str,
        *,
        body: Body | None = None,
        query: Mapping[str, str] | None = None,
        content_type: str = "",
        timeout: urllib3.Timeout | None = None,
    ) -> urllib3.BaseHTTPResponse:
        headers = {"Accept": "application/json", "User-Agent": "leasegate-watcher", **self._connection.headers()}
        if body is not None:
            headers["Content-Type"] = content_type or "application/json"
        try:
            return self._connection.pool.request(
                method,
                self._connection.server + path + _query(query),
                body=None if body is None else json.dumps(body, separators=(",", ":")).encode(),
                headers=headers,
                timeout=timeout or urllib3.Timeout(total=REQUEST_TIMEOUT_S),
                retries=False,
                redirect=False,
                preload_content=False,
            )
        except urllib3.exceptions.HTTPError as err:
            raise KubeError(f"Kubernetes does not answer: {type(err).__name__}", status=0) from err


def _dry_run(is_one: bool) -> Mapping[str, str]:
    return {"dryRun": "All"} if is_one else {}


def _query(query: Mapping[str, str] | None) -> str:
    given = {name: value for name, value in (query or {}).items() if value}
    return "?" + urlencode(given) if given else ""


def _lines(answer: urllib3.BaseHTTPResponse) -> Iterator[Body]:
    """One JSON document per line, as soon as it arrives: the server sends each event in a chunk of its own."""
    rest = b""
    for chunk in answer.read_chunked() if getattr(answer, "chunked", False) else answer.stream(65536):
        *whole, rest = (rest + chunk).split(b"\n")
        for line in whole:
            if line:
                yield json.loads(line)


def _error(status: int, data: bytes) -> KubeError:
    try:
        body = json.loads(data)
    except ValueError:
        body = {}
    return error_of(body if isinstance(body, dict) else {}, status=status)


def error_of(body: Mapping[str, Any], *, status: int = 0) -> KubeError:
    """The error of a ``Status`` object, which is an answer's body or an event of a watch."""
    causes = ((body.get("details") or {}).get("causes")) or []
    text = str(body.get("message") or f"HTTP status {status}")
    return KubeError(
        text if len(text) <= TEXT_CHARS else text[: TEXT_CHARS - 1] + "…",
        status=int(body.get("code") or status),
        reason=str(body.get("reason") or ""),
        causes=tuple(str(cause.get("reason", "")) for cause in causes),
    )
