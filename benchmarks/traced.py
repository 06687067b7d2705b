"""Runs one of the processes with a note of when its calls begin and end: ``python -m benchmarks.traced MODULE FILE``.

It wraps functions from outside, so that nothing in the product knows of it. Each note is a line of JSON: name, begin
and end in seconds since 1970, which all processes of one machine share.
"""

from __future__ import annotations

import functools
import json
import os
import runpy
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

Name = Callable[..., str]
"""Names a call by its arguments; an empty name leaves it out."""

_QUIET = ("WatchChanges", "Check", "WaitAccessRequest")


class Notes:
    """The file of one process."""

    def __init__(self, path: str) -> None:
        """Open it; each line is one write, whichever thread it comes from."""
        self._file = os.open(path, os.O_CREAT | os.O_WRONLY | os.O_APPEND, 0o600)

    def note(self, name: str, began: float, ended: float) -> None:
        """Write one line."""
        if name:
            os.write(self._file, json.dumps([name, began, ended]).encode() + b"\n")

    def wrap(self, owner: Any, attribute: str, name: Name) -> None:
        """Note each call of a function."""
        inner = getattr(owner, attribute)

        @functools.wraps(inner)
        def outer(*args: Any, **kwargs: Any) -> Any:
            began = time.time()
            try:
                return inner(*args, **kwargs)
            finally:
                self.note(name(*args, **kwargs), began, time.time())

        setattr(owner, attribute, outer)

    def wrap_context(self, owner: Any, attribute: str, name: Name) -> None:
        """Note each use of a context manager."""
        inner = getattr(owner, attribute)

        @contextmanager
        def outer(*args: Any, **kwargs: Any) -> Iterator[Any]:
            began = time.time()
            try:
                with inner(*args, **kwargs) as value:
                    yield value
            finally:
                self.note(name(*args, **kwargs), began, time.time())

        setattr(owner, attribute, outer)


def trace_access(notes: Notes) -> None:
    """The calls that access answers, its ledger and its calls of Vault."""
    from services.access.ledger.db.database import Ledger
    from services.common.rpc.interceptors import Chain
    from services.common.vault.transport import Transport

    notes.wrap(Chain, "_logged", lambda _chain, method, *_: _rpc(method))
    notes.wrap_context(Ledger, "write", lambda _ledger: "ledger transaction")
    notes.wrap_context(Ledger, "read", lambda _ledger: "ledger read")
    notes.wrap(Transport, "send", lambda _transport, method, path, **_: f"Vault {method} {_family(path)}")


def trace_watcher(notes: Notes) -> None:
    """The watcher's events, reconciles, and calls of Kubernetes and of access."""
    from services.common.rpc import channel
    from watcher.kube.client import HttpKubeClient
    from watcher.kube.controller import Controller
    from watcher.kube.informer import Informer

    notes.wrap(
        Informer,
        "_apply",
        lambda informer, *_: "event" if informer._resource.plural == "databaseaccessrequests" else "",
    )
    notes.wrap(
        Controller,
        "reconcile_key",
        lambda controller, _key: "reconcile" if controller.name == "access_requests" else "",
    )
    notes.wrap(HttpKubeClient, "_call", lambda _api, method, path, **_: f"Kubernetes {method} {_kind(path)}")
    bind = channel._Channel.unary_unary

    def unary_unary(self: Any, method: str, *serializers: Any, **options: Any) -> Any:
        made = bind(self, method, *serializers, **options)

        def call(request: Any, timeout: float | None = None, **more: Any) -> Any:
            began = time.time()
            try:
                return made(request, timeout, **more)
            finally:
                notes.note(f"call {name}" if (name := _rpc(method)) else "", began, time.time())

        return call

    channel._Channel.unary_unary = unary_unary  # type: ignore[method-assign]


def _rpc(method: str) -> str:
    name = method.rpartition("/")[2]
    return "" if name in _QUIET else name


def _kind(path: str) -> str:
    words = path.partition("/namespaces/")[2].split("/")
    return "/".join(word for number, word in enumerate(words[1:]) if number != 1)


def _family(path: str) -> str:
    for family in (
        "sys/leases/revoke",
        "sys/leases/renew",
        "auth/token/create",
        "auth/token/revoke-accessor",
        "/creds/",
    ):
        if family in path:
            return family.strip("/")
    return "other"


if __name__ == "__main__":
    module, file = sys.argv[1:3]
    sys.argv = [module]
    (trace_watcher if module == "watcher" else trace_access)(Notes(file))
    runpy.run_module(module, run_name="__main__", alter_sys=True)
