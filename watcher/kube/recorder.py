"""Kubernetes Events, for ``kubectl describe``: written in a thread of their own, so that no work waits for them, and counted when repeated.

An Event that cannot be written is lost, as in every controller: the status says the same. In a namespace that is being deleted none can
be made.
"""

from __future__ import annotations

import datetime
import hashlib
import json
import queue
import secrets
import threading
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass

from services.common import logs
from watcher.kube.client import KubeClient, KubeError
from watcher.kube.conditions import text, timestamp
from watcher.kube.resources import EVENT, Body, uid_of, version_of

LOG = logs.logger(__name__)
COMPONENT = "leasegate-watcher"
BACKLOG = 5000
REMEMBERED = 4096
REPEAT_S = 60.0
REASON_CHARS = 128


@dataclass(frozen=True, slots=True)
class _News:
    """What is to be written: thousands may wait, so of the object only what an Event names of it, packed."""

    packed: bytes
    reason: str
    message: str
    warning: bool
    transition: bool

    @property
    def about(self) -> Body:
        """The object's reference."""
        found: Body = json.loads(self.packed)
        return found


@dataclass(slots=True)
class _Written:
    """An Event that was written: its name, how often it happened, and when that was last said."""

    name: str
    count: int
    said: datetime.datetime


class EventRecorder:
    """Takes Events and writes them in the background.

    Args:
        api: Kubernetes.
        now: The time.
    """

    def __init__(self, api: KubeClient, *, now: Callable[[], datetime.datetime]) -> None:
        self._api, self._now = api, now
        self._backlog: queue.Queue[_News] = queue.Queue(BACKLOG)
        self._written: OrderedDict[int, _Written] = OrderedDict()
        self._process = secrets.token_hex(
            4
        )  # an Event of an earlier process is not counted on: it would have to be read first

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
            packed = json.dumps(_about(obj), separators=(",", ":")).encode()
            self._backlog.put_nowait(_News(packed, reason[:REASON_CHARS], text(message), warning, transition))
        except queue.Full:
            LOG.warning("events dropped", reason=reason)

    def __len__(self) -> int:
        """How many wait to be written."""
        return self._backlog.qsize()

    def run(self, stop: threading.Event) -> None:
        """Write until ``stop``, and then what is left."""
        while not (stop.is_set() and self._backlog.empty()):
            try:
                self._write(self._backlog.get(timeout=0.5))
            except queue.Empty:
                continue

    def write_all(self) -> None:
        """Write what waits, now."""
        while not self._backlog.empty():
            self._write(self._backlog.get_nowait())

    def _write(self, news: _News) -> None:
        """Write one Event, or count it; an error is logged."""
        try:
            self._tell(news)
        except KubeError as err:
            if not err.is_terminating:
                LOG.info("event not written", reason=news.reason, status=err.status, error=err.message)
        except Exception:  # an Event is never worth a thread
            LOG.exception("event not written", reason=news.reason)

    def _tell(self, news: _News) -> None:
        about, now = news.about, self._now()
        key = hash((about["uid"], news.reason, news.message))  # stands for what is counted as the same
        known = self._written.get(key)
        if known is None:
            self._written[key] = self._create(news, about, now=now)
            while len(self._written) > REMEMBERED:
                self._written.popitem(last=False)
            return
        known.count += 1
        if not news.transition and (now - known.said).total_seconds() < REPEAT_S:
            return
        known.said = now
        try:
            body = {"count": known.count, "lastTimestamp": timestamp(now)}
            self._api.patch(EVENT, body, namespace=_place(about), name=known.name)
        except KubeError as err:
            if err.status != 404:  # the server forgets Events after an hour
                raise
            self._written[key] = self._create(news, about, now=now)

    def _create(self, news: _News, about: Body, *, now: datetime.datetime) -> _Written:
        told = (about["uid"], news.reason, news.message, self._process, now.isoformat())
        digest = hashlib.sha256("\n".join(told).encode()).hexdigest()[:16]
        name = f"{about['name'][:230].rstrip('.-')}.{digest}"
        self._api.create(EVENT, _event(news, about, name=name, stamp=timestamp(now)), namespace=_place(about))
        return _Written(name=name, count=1, said=now)


def _about(obj: Body) -> Body:
    meta = obj["metadata"]
    about = {
        "apiVersion": obj.get("apiVersion", ""),
        "kind": obj.get("kind", ""),
        "name": meta["name"],
        "uid": uid_of(obj),
        "resourceVersion": version_of(obj),
    }
    return about | ({"namespace": meta["namespace"]} if meta.get("namespace") else {})


def _place(about: Body) -> str:
    """Where the Event goes."""
    return str(about.get("namespace") or "default")


def _event(news: _News, about: Body, *, name: str, stamp: str) -> Body:
    return {
        "apiVersion": "v1",
        "kind": "Event",
        "metadata": {"name": name, "namespace": _place(about)},
        "involvedObject": about,
        "reason": news.reason,
        "message": news.message,
        "type": "Warning" if news.warning else "Normal",
        "count": 1,
        "firstTimestamp": stamp,
        "lastTimestamp": stamp,
        "source": {"component": COMPONENT},
        "reportingComponent": COMPONENT,
        "reportingInstance": COMPONENT,
    }
