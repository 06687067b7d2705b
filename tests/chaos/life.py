"""One life of the access service in this process: its real objects over the real ledger file, without sockets."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from types import SimpleNamespace
from typing import Any, cast
from unittest import mock

import sqlalchemy as sa

from services.access import app
from services.access.domain.settings import Settings
from services.access.ledger.db.database import Ledger
from services.access.requests.catalog_file import read_catalog
from services.access.vault.clients import SCOPE
from services.common import failpoints
from services.common.failpoints import Failpoints
from services.common.rpc import caller, deadline
from services.common.vault import sessions
from services.common.vault.sessions import Sessions
from services.common.vault.vaults import Vaults
from services.common.vault_config.read import read_vault_config
from tests.chaos.clock import LeapingClock
from tests.chaos.fate import Crashed, Fate
from tests.chaos.weather import Weather, ledger_listeners, transport_in
from tests.integration.access_world import ALLOWED, WATCHER_CLUSTERS, Callers, World

RPC_S = 25.0
THREADS_END_S = 45.0


class Caught:
    """Takes the place of a gRPC server and keeps the handlers that are registered with it."""

    def __init__(self) -> None:
        self.handlers: dict[str, dict[str, Any]] = {}

    def add_registered_method_handlers(self, name: str, handlers: dict[str, Any]) -> None:
        self.handlers[name] = handlers

    def add_generic_rpc_handlers(self, _: Any) -> None:
        return


class Life:
    """A running access service; stands in for ``access_world.Callee``."""

    def __init__(self, made: app.Access, fate: Fate) -> None:
        self.ledger: Ledger = made.ledger
        self.fate = fate
        self._caught = Caught()
        for each in made.services:
            each.register(cast(Any, self._caught))

    def as_(self, san: str) -> Callers:
        """The stubs of one caller."""
        stubs = {name.rpartition(".")[2]: self._stub(san, handlers) for name, handlers in self._caught.handlers.items()}
        return Callers(
            stubs["WatcherService"], stubs["RequesterService"], stubs["ApproverService"], stubs["OperatorService"]
        )

    def _stub(self, san: str, handlers: dict[str, Any]) -> Any:
        return SimpleNamespace(**{name: self._call(san, handler.unary_unary) for name, handler in handlers.items()})

    def _call(self, san: str, handle: Callable[[Any, Any], Any]) -> Callable[[Any], Any]:
        def call(request: Any) -> Any:
            self.fate.check()
            with caller.acting(san, may=lambda service: san in ALLOWED[service]), deadline.within(RPC_S):
                answer = handle(request, None)
            self.fate.check()
            return answer

        return call

    def nudge(self) -> None:
        """Have the workers look at the clock."""
        with self.ledger.write() as tx:
            tx.wake(tx.now)


class Lives:
    """Starts one life after the other over the same ledger file, with one auth at Vault for all of them."""

    def __init__(self, made: World, weather: Weather, clock: LeapingClock) -> None:
        self._world, self._weather, self._clock = made, weather, clock
        named = read_vault_config(made.vault_config_file)
        self._vaults = Vaults(named, service="access")
        self._configured = read_catalog(made.catalog_file, named)
        self._sessions = Sessions(SCOPE, vaults=self._vaults)
        self._patches = ExitStack()
        self._patches.enter_context(mock.patch.object(sessions, "Transport", transport_in(weather)))
        self._patches.enter_context(mock.patch.object(app, "Sessions", self._shared))
        self._patches.enter_context(mock.patch.object(threading, "excepthook", _unless_crashed(threading.excepthook)))
        for name, listener in ledger_listeners(weather).items():
            sa.event.listen(sa.Engine, name, listener)
            self._patches.callback(sa.event.remove, sa.Engine, name, listener)

    def _shared(self, *_: Any, **__: Any) -> Any:
        """The sessions that outlive each life, as logging in is nothing that a death could spoil."""
        return _Lent(self._sessions)

    @contextmanager
    def life(self, fate: Fate, **settings: Any) -> Iterator[Life]:
        """Live until the block is left; that it raises ``Crashed`` is how a life is meant to end.

        Raises:
            Crashed: The life ended before it was in use.
        """
        chosen = Settings(
            **{"max_request_duration_s": 2.0, "workers": 4, "overlap_s": 60.0, "claim_backoff_s": 2.0, **settings}
        )
        opening = fate.aim is not None and fate.aim.opening
        used = False
        self._begin(fate if opening else Fate(None))
        try:
            with app.access(
                self._world.ledger,
                vaults=self._vaults,
                configured=self._configured,
                watcher_clusters=WATCHER_CLUSTERS,
                settings=chosen,
                clock=self._clock,
            ) as made:
                self._begin(fate)
                used = True
                yield Life(made, fate)
                fate.die("end of the run")
        except Crashed:
            if not used:
                raise
        finally:
            fate.die("harness")
            failpoints.install(Failpoints())
            _workers_end()

    def _begin(self, fate: Fate) -> None:
        self._weather.fate = fate
        failpoints.install(cast(Failpoints, fate))

    def close(self) -> None:
        """Undo what was put in place."""
        self._weather.fate = Fate(None)
        self._patches.close()
        self._sessions.close()


class _Lent:
    """Sessions that are not closed by who borrows them."""

    def __init__(self, owner: Sessions) -> None:
        self._owner = owner

    def __getattr__(self, name: str) -> Any:
        return getattr(self._owner, name)

    def close(self) -> None:
        return


def _unless_crashed(hook: Callable[[Any], object]) -> Callable[[Any], object]:
    return lambda args: None if args.exc_type is Crashed else hook(args)


def _workers_end() -> None:
    """No thread of a dead life may be left when the next begins."""
    end = time.monotonic() + THREADS_END_S
    for thread in threading.enumerate():
        if thread.name.startswith("worker-"):
            thread.join(max(0.0, end - time.monotonic()))
            if thread.is_alive():
                raise AssertionError(f"{thread.name} of a dead process goes on")
