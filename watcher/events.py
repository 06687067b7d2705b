"""Kubernetes Events, for ``kubectl describe``: written in a thread of their own, so that no work waits for them, and counted when repeated.

An Event that cannot be written is lost, as in every controller: the status says the same. In a namespace that is being deleted none can
be made.
"""

from __future__ import annotations

import datetime
import hashlib
import queue
import secrets
import threading
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass

from services.common import logs
from watcher.api import Api, KubeError
from watcher.kinds import EVENT, Body, uid_of, version_of
from watcher.status import text, timestamp

LOG = logs.logger(__name__)
COMPONENT = "leasegate-watcher"
BACKLOG = 5000
REMEMBERED = 4096
REPEAT_S = 60.0
REASON_CHARS = 128


@dataclass(slots=True)
class _Written:
    """An Event that was written: its name, how often it happened, and when that was last said."""

    name: str
    count: int
    said: datetime.datetime


class Recorder:
    """Takes Events and writes them in the background.

    Args:
        api: Kubernetes.
        now: The time.
    """

    def __init__(self, api: Api, *, now: Callable[[], datetime.datetime]) -> None:
        self._api, self._now = api, now
        self._backlog: queue.Queue[tuple[Body, str, str, bool, bool] | None] = queue.Queue(BACKLOG)
        self._written: OrderedDict[tuple[str, str, str], _Written] = OrderedDict()
        self._process = secrets.token_hex(4)  # an Event of an earlier process is not counted on: it would have to be read first

    def record(self, obj: Body, *, reason: str, message: str, warning: bool, transition: bool = True) -> None:
        """Have an Event written about an object.

        Args:
            obj: What it is about.
            reason: CamelCase word.
            message: A sentence; no secret.
            warning: Whether somebody should act.
            transition: Whether this is new, else it is a repetition, which is said at most once a minute.
        """
        try:
            self._backlog.put_nowait((obj, reason[:REASON_CHARS], text(message), warning, transition))
        except queue.Full:
            LOG.warning("events dropped", reason=reason)

    def run(self, stop: threading.Event) -> None:
        """Write until ``stop``, and then what is left."""
        while not (stop.is_set() and self._backlog.empty()):
            try:
                item = self._backlog.get(timeout=0.5)
            except queue.Empty:
                continue
            if item is not None:
                self.write(*item)

    def write_all(self) -> None:
        """Write what waits, now."""
        while not self._backlog.empty():
            item = self._backlog.get_nowait()
            if item is not None:
                self.write(*item)

    def write(self, obj: Body, reason: str, message: str, warning: bool, transition: bool) -> None:
        """Write one Event, or count it; an error is logged."""
        try:
            self._write(obj, reason, message, warning, transition)
        except KubeError as err:
            if not err.is_terminating:
                LOG.info("event not written", reason=reason, status=err.status, error=err.message)
        except Exception:  # an Event is never worth a thread
            LOG.exception("event not written", reason=reason)

    def _write(self, obj: Body, reason: str, message: str, warning: bool, transition: bool) -> None:
        key, now = (uid_of(obj), reason, message), self._now()
        known = self._written.get(key)
        if known is None:
            self._create(key, obj, warning=warning, now=now)
            return
        known.count += 1
        if not transition and (now - known.said).total_seconds() < REPEAT_S:
            return
        known.said = now
        try:
            body = {"count": known.count, "lastTimestamp": timestamp(now)}
            self._api.patch(EVENT, body, namespace=_namespace(obj), name=known.name)
        except KubeError as err:
            if err.status != 404:  # the server forgets Events after an hour
                raise
            self._create(key, obj, warning=warning, now=now)

    def _create(self, key: tuple[str, str, str], obj: Body, *, warning: bool, now: datetime.datetime) -> None:
        digest = hashlib.sha256("\n".join((*key, self._process, now.isoformat())).encode()).hexdigest()[:16]
        name, stamp = f"{obj['metadata']['name'][:230].rstrip('.-')}.{digest}", timestamp(now)
        _, reason, message = key
        self._api.create(
            EVENT, _event(obj, name=name, reason=reason, message=message, warning=warning, stamp=stamp), namespace=_namespace(obj)
        )
        self._written[key] = _Written(name=name, count=1, said=now)
        while len(self._written) > REMEMBERED:
            self._written.popitem(last=False)


def _namespace(obj: Body) -> str:
    return str(obj["metadata"].get("namespace") or "default")


def _event(obj: Body, *, name: str, reason: str, message: str, warning: bool, stamp: str) -> Body:
    meta = obj["metadata"]
    about = {
        "apiVersion": obj["apiVersion"],
        "kind": obj["kind"],
        "name": meta["name"],
        "uid": uid_of(obj),
        "resourceVersion": version_of(obj),
    }
    if meta.get("namespace"):
        about["namespace"] = meta["namespace"]
    return {
        "apiVersion": "v1",
        "kind": "Event",
        "metadata": {"name": name, "namespace": _namespace(obj)},
        "involvedObject": about,
        "reason": reason,
        "message": message,
        "type": "Warning" if warning else "Normal",
        "count": 1,
        "firstTimestamp": stamp,
        "lastTimestamp": stamp,
        "source": {"component": COMPONENT},
        "reportingComponent": COMPONENT,
        "reportingInstance": COMPONENT,
    }
