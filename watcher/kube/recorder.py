"""Writes Kubernetes Events, for ``kubectl describe``: in a thread of their own, and counted when repeated.

An Event that cannot be written is lost, as in every controller: the status says the same. In a namespace that is being
deleted none can be created.
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
from typing import TypeAlias

from services.common import logs
from watcher.kube.client import KubeClient, KubeError
from watcher.kube.conditions import text, timestamp
from watcher.kube.resources import EVENT, Body, uid_of, version_of

LOG = logs.logger(__name__)
COMPONENT = "leasegate-watcher"
BACKLOG = 5000
"""So many Events may wait to be written; more are dropped."""
COUNTED = 4096
"""So many written Events are known, so that a repetition raises their count."""
REPEAT_S = 60.0
REASON_CHARS = 128
_Kind: TypeAlias = tuple[str, str, str]
"""Uid, reason and message: Events that share them are one Event with a count."""


@dataclass(frozen=True, slots=True)
class _PendingEvent:
    """An Event that waits to be written; ``regarding`` is the reference to its object."""

    regarding: Body
    reason: str
    message: str
    warning: bool
    transition: bool


@dataclass(slots=True)
class _WrittenEvent:
    """An Event that was written: its name, how often it happened, and when its count was written last."""

    name: str
    count: int
    written_at: datetime.datetime


class EventRecorder:
    """Takes Events and writes them in the background.

    Args:
        api: Kubernetes.
        now: The time.
    """

    def __init__(self, api: KubeClient, *, now: Callable[[], datetime.datetime]) -> None:
        self._api, self._now = api, now
        self._backlog: queue.Queue[_PendingEvent] = queue.Queue(BACKLOG)
        self._written: OrderedDict[_Kind, _WrittenEvent] = OrderedDict()
        self._process = secrets.token_hex(4)  # the Events of an earlier process are not counted on

    def record(self, obj: Body, *, reason: str, message: str, warning: bool, transition: bool = True) -> None:
        """Queue an Event about an object.

        Args:
            obj: The object.
            reason: CamelCase word.
            message: A sentence; no secret.
            warning: Whether somebody should act.
            transition: Whether this is new; a repetition is written at most once a minute.
        """
        try:
            self._backlog.put_nowait(
                _PendingEvent(_reference(obj), reason[:REASON_CHARS], text(message), warning, transition)
            )
        except queue.Full:
            LOG.warning("event dropped: too many wait", reason=reason)

    def __len__(self) -> int:
        """How many Events wait to be written."""
        return self._backlog.qsize()

    def run(self, stop: threading.Event) -> None:
        """Write Events until ``stop``, and then those that still wait."""
        while not (stop.is_set() and self._backlog.empty()):
            try:
                self._write(self._backlog.get(timeout=0.5))
            except queue.Empty:
                continue

    def _write(self, event: _PendingEvent) -> None:
        """Write one Event, or count it; an error is logged."""
        try:
            self._create_or_count(event)
        except KubeError as err:
            if not err.is_terminating:
                LOG.info("event not written", reason=event.reason, status=err.status, error=err.message)
        except Exception:  # an Event is never worth the thread
            LOG.exception("event not written", reason=event.reason)

    def _create_or_count(self, event: _PendingEvent) -> None:
        now, kind = self._now(), (event.regarding["uid"], event.reason, event.message)
        known = self._written.get(kind)
        if known is None:
            self._written[kind] = self._create(event, now=now)
            while len(self._written) > COUNTED:
                self._written.popitem(last=False)
            return
        known.count += 1
        if not event.transition and (now - known.written_at).total_seconds() < REPEAT_S:
            return
        known.written_at = now
        try:
            body = {"count": known.count, "lastTimestamp": timestamp(now)}
            self._api.patch(EVENT, body, namespace=_namespace(event.regarding), name=known.name)
        except KubeError as err:
            if err.status != 404:  # the API server deletes Events after an hour
                raise
            self._written[kind] = self._create(event, now=now)

    def _create(self, event: _PendingEvent, *, now: datetime.datetime) -> _WrittenEvent:
        regarding = event.regarding
        parts = (regarding["uid"], event.reason, event.message, self._process, now.isoformat())
        digest = hashlib.sha256("\n".join(parts).encode()).hexdigest()[:16]
        name = f"{regarding['name'][:230].rstrip('.-')}.{digest}"
        self._api.create(EVENT, _body(event, name=name, stamp=timestamp(now)), namespace=_namespace(regarding))
        return _WrittenEvent(name=name, count=1, written_at=now)


def _reference(obj: Body) -> Body:
    meta = obj["metadata"]
    found = {
        "apiVersion": obj.get("apiVersion", ""),
        "kind": obj.get("kind", ""),
        "name": meta["name"],
        "uid": uid_of(obj),
        "resourceVersion": version_of(obj),
    }
    return found | ({"namespace": meta["namespace"]} if meta.get("namespace") else {})


def _namespace(regarding: Body) -> str:
    """Namespace of the Event; ``default`` for an object without one."""
    return str(regarding.get("namespace") or "default")


def _body(event: _PendingEvent, *, name: str, stamp: str) -> Body:
    return {
        "apiVersion": "v1",
        "kind": "Event",
        "metadata": {"name": name, "namespace": _namespace(event.regarding)},
        "involvedObject": event.regarding,
        "reason": event.reason,
        "message": event.message,
        "type": "Warning" if event.warning else "Normal",
        "count": 1,
        "firstTimestamp": stamp,
        "lastTimestamp": stamp,
        "source": {"component": COMPONENT},
        "reportingComponent": COMPONENT,
        "reportingInstance": COMPONENT,
    }
