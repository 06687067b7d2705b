"""All parts of the watcher put together: stores, queues, workers, and which change brings which object back into which queue."""

from __future__ import annotations

import datetime
import random
import threading
import time
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

from services.common import logs
from watcher.clients.changefeed import ChangeFeed, Handlers
from watcher.clients.ledger_id import LedgerId
from watcher.clients.stubs import ServiceStubs
from watcher.delivery.namespaces import Enablement, Namespaces
from watcher.delivery.publisher import SecretPublisher
from watcher.delivery.rbac_audit import RbacAudit
from watcher.kube.backoff import Backoff
from watcher.kube.cache import Cache
from watcher.kube.client import KubeClient
from watcher.kube.controller import Controller
from watcher.kube.informer import Informer, InformerTiming
from watcher.kube.objects import Objects
from watcher.kube.recorder import EventRecorder
from watcher.kube.resources import Key, Resource, is_deleting
from watcher.kube.workqueue import WorkQueue
from watcher.reconcilers.access_request import AccessRequestReconciler
from watcher.reconcilers.access_request_status import AccessRequestReporter
from watcher.reconcilers.appbinding import AppBindingReconciler
from watcher.reconcilers.cleanup_role import CleanupRoleChange, CleanupRoleReconciler
from watcher.reconcilers.failure_window import FailureWindow
from watcher.reconcilers.postgres_role import PostgresRoleReconciler
from watcher.reconcilers.secret_engine import SecretEngineReconciler
from watcher.reconcilers.status import StatusReporter
from watcher.reconcilers.vault_targets import VaultTargets
from watcher.specs.appbinding import ServiceAddresses
from watcher.specs.cluster import Cluster
from watcher.specs.kinds import ACCESS_REQUEST, APP_BINDING, FINALIZER, POSTGRES_ROLE, SECRET_ENGINE
from watcher.triggers import Triggers

LOG = logs.logger(__name__)
STOP_S = 8.0
"""Kubernetes gives a container 30 s to end."""
RESYNC_STEP_S = 0.25
"""So often a part of all objects is looked at again."""


@dataclass(frozen=True, slots=True)
class Settings:
    """What an operator may set, and what tests set otherwise.

    Attributes:
        cluster: Which cluster this is.
        addresses: Services that are reached elsewhere than at their names.
        audience: Audience of ServiceAccount tokens; empty for the API server's own.
        finalizer_timeout_s: How long a deletion waits where Vault answers but lets nobody in.
        resync_s: Every object is looked at again once in so long, whatever happens: how often drift in Vault is
            checked.
        workers: Threads of each kind.
        beside: Threads for work beside a worker's own.
        watch_s: Longest time of one watch.
        refused_cap_s: Longest pause between two looks at a namespace that is not served.
    """

    cluster: Cluster
    addresses: ServiceAddresses = field(default_factory=dict)
    audience: str = ""
    finalizer_timeout_s: float = 120.0
    resync_s: float = 300.0
    workers: Mapping[str, int] = field(
        default_factory=lambda: {
            "requests": 12,
            "engines": 4,
            "roles": 4,
            "appbindings": 2,
            "cleanup_roles": 2,
            "readers": 1,
        }
    )
    beside: int = 16
    watch_s: float = 60.0
    refused_cap_s: float = 8.0

    @property
    def connections(self) -> int:
        """How many threads call Kubernetes at once, at most; watches not counted."""
        return sum(self.workers.values()) + self.beside + 2


class Watcher:
    """The whole of it.

    Args:
        api: Kubernetes.
        peers: The services.
        settings: Its settings.
        clock: Monotonic seconds.
    """

    def __init__(
        self, api: KubeClient, peers: ServiceStubs, settings: Settings, *, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._api, self._settings, self._clock = api, settings, clock
        self._stop, self._broken = threading.Event(), threading.Event()
        self._recording: threading.Thread | None = None
        self._beside = ThreadPoolExecutor(settings.beside, thread_name_prefix="beside")
        self.queues: dict[str, WorkQueue[Any]] = {
            name: WorkQueue(self._backoff(0.02, 60.0), clock=clock) for name in settings.workers
        }
        self.router = Triggers(self.queues)
        self._stores = {resource: Cache(on_change=self.router.changed(resource)) for resource in _KINDS}
        self._objects = Objects(api, self._stores, finalizer=FINALIZER)
        self.events = EventRecorder(api, now=_now)
        self.namespaces = Namespaces(
            api,
            timing=self._timing(self._backoff(0.2, settings.refused_cap_s)),
            on_secret=self.router.secret_changed,
            on_enablement=self.router.service_changed,
            on_enabled=self.queues["readers"].add,
            start=self._start_informer,
        )
        self._build(peers)
        self._informers = [
            Informer(api, resource, store, timing=self._timing(self._backoff(0.1, 30.0)))
            for resource, store in self._stores.items()
        ]

    def _build(self, peers: ServiceStubs) -> None:
        settings, objects, cluster = self._settings, self._objects, self._settings.cluster
        logins = VaultTargets(
            self._api,
            objects,
            cluster=cluster,
            addresses=settings.addresses,
            audience=settings.audience,
            clock=self._clock,
        )
        patience = FailureWindow(self._clock, finalizer_timeout_s=settings.finalizer_timeout_s)
        bindings = AppBindingReconciler(objects=objects, logins=logins, peers=peers, events=self.events)
        common: dict[str, Any] = {
            "objects": objects, "logins": logins, "bindings": bindings, "peers": peers, "patience": patience, "cluster": cluster,
        }  # fmt: skip
        engines = SecretEngineReconciler(
            **common, reporter=self._reporter(SECRET_ENGINE, "secret engine is ready to use")
        )
        roles = PostgresRoleReconciler(
            **common,
            reporter=self._reporter(POSTGRES_ROLE, "role is ready to use"),
            on_catalogue=self.router.catalogue_changed,
        )
        publisher = SecretPublisher(self._api, self.namespaces, self._beside)
        readers = RbacAudit(
            self._api,
            objects=objects,
            namespaces=self.namespaces,
            publisher=publisher,
            executor=self._beside,
            on_due=self._due,
        )
        requests = AccessRequestReconciler(
            objects=objects,
            publisher=publisher,
            readers=readers,
            peers=peers,
            reporter=AccessRequestReporter(objects=objects, events=self.events, now=_now),
            patience=patience,
            cluster=cluster,
        )
        cleanup_roles = CleanupRoleReconciler(logins=logins, peers=peers)
        self.router.connect(
            objects=objects, namespaces=self.namespaces, bindings=bindings, requests=requests, roles=roles
        )
        work: dict[str, Callable[[Any], Any]] = {
            "requests": requests.reconcile,
            "engines": engines.reconcile,
            "roles": roles.reconcile,
            "appbindings": bindings.reconcile,
            "cleanup_roles": cleanup_roles.reconcile,
            "readers": readers.reconcile,
        }
        self.controllers = [
            Controller(name, self.queues[name], reconcile, workers=settings.workers[name])
            for name, reconcile in work.items()
        ]
        self.feed = ChangeFeed(
            peers,
            self._handlers(bindings, requests, cleanup_roles),
            ledger_id=LedgerId(self._api),
            backoff=self._backoff(0.1, 5.0),
        )

    def start(self) -> None:
        """Start everything. Reconciling begins when all four kinds are listed, so that nothing is decided on half of
        what there is.
        """
        for informer in self._informers:
            self._start_informer(informer, self._stop)
        self._recording = self._run("events", lambda: self.events.run(self._stop))
        self._run("begin", self._begin)

    def stop(self) -> None:
        """End everything: what is in hand is finished and the last Events are written, as far as that takes ``STOP_S``
        at most.
        """
        end = time.monotonic() + STOP_S
        self._stop.set()
        self.namespaces.close()
        for queue in self.queues.values():
            queue.close()
        for controller in self.controllers:
            controller.stop(end - time.monotonic())
        if self._recording:
            self._recording.join(max(1.0, end - time.monotonic()))
        self._beside.shutdown(wait=False, cancel_futures=True)

    def alive(self) -> bool:
        """Whether no thread has died."""
        return not self._broken.is_set() and all(controller.alive() for controller in self.controllers)

    def counts(self) -> dict[str, int]:
        """How many objects are known of each kind."""
        return {resource.kind: len(store) for resource, store in self._stores.items()}

    def ready(self) -> bool:
        """Whether all kinds are listed and access' feed has answered."""
        return all(informer.synced.is_set() for informer in self._informers) and self.feed.answered.is_set()

    def _begin(self) -> None:
        for informer in self._informers:
            while not informer.synced.wait(0.5):
                if self._stop.is_set():
                    return
        self.router.open()
        for controller in self.controllers:
            controller.start()
        self._run("feed", lambda: self.feed.run(self._stop))
        self._run("resync", self._resync)
        LOG.info("started", objects={resource.plural: len(store) for resource, store in self._stores.items()})

    def _due(self, request: Key) -> None:
        self.queues["requests"].add(request, low=True)

    def _resync(self) -> None:
        """Look at everything again and again: so whatever somebody changed in Vault is put back, and what an event did
        not say is seen.

        Spread over the whole interval: all at once, 10,000 requests would keep watcher and access busy for half a
        minute.
        """
        steps = max(1, int(self._settings.resync_s / RESYNC_STEP_S))
        while not self._stop.is_set():
            for _ in self.router.round(steps):
                if self._stop.wait(self._settings.resync_s / steps):
                    return

    def _handlers(
        self, bindings: AppBindingReconciler, requests: AccessRequestReconciler, cleanup_roles: CleanupRoleReconciler
    ) -> Handlers:
        def cleanup_role(wish: CleanupRoleChange) -> None:
            self.queues["cleanup_roles"].add(cleanup_roles.wish(wish))

        def login(ref: Any) -> None:
            key = Key(ref.namespace, ref.name)
            bindings.needs_login(key)
            self.queues["appbindings"].add(key)

        def request(ref: Any) -> None:
            if self._is_own(ref):
                key = requests.heard(ref)
                known = self._objects.get(ACCESS_REQUEST, key)
                # Most changes were made by a call of the watcher's own: who waits for a decision's effect goes before
                # them.
                self.queues["requests"].add(key, low=known is not None and not is_deleting(known))

        def restarted() -> None:
            self.router.restarted()
            for key in requests.compare():  # what vanished while nobody looked
                self.queues["requests"].add(key)

        return Handlers(
            request=request,
            cleanup_role=cleanup_role,
            vault_auth=login,
            restarted=restarted,
        )

    def _is_own(self, ref: Any) -> bool:
        return bool(ref.namespace) and self._settings.cluster.is_of(ref)

    def _reporter(self, resource: Resource, ready: str) -> StatusReporter:
        return StatusReporter(
            resource, objects=self._objects, events=self.events, ready=ready, now=_now, unserved=self._is_unserved
        )

    def _is_unserved(self, namespace: str) -> bool:
        return self.namespaces.enablement(namespace) is Enablement.REFUSED

    def _timing(self, backoff: Backoff) -> InformerTiming:
        return InformerTiming(backoff=backoff, random=random.random, watch_s=self._settings.watch_s)

    def _backoff(self, base_s: float, cap_s: float) -> Backoff:
        return Backoff(base_s=base_s, cap_s=cap_s, random=random.random)

    def _start_informer(self, informer: Informer, stop: threading.Event) -> None:
        self._run("informer", lambda: informer.run(stop))

    def _run(self, name: str, work: Callable[[], None]) -> threading.Thread:
        """Work in a thread of its own; if it dies of a defect, so does the process: what it did, nobody else does."""

        def guarded() -> None:
            try:
                work()
            except Exception:
                LOG.exception("thread ended by a defect", thread=name)
                self._broken.set()

        thread = threading.Thread(target=guarded, name=name, daemon=True)
        thread.start()
        return thread


_KINDS: Iterable[Resource] = (APP_BINDING, SECRET_ENGINE, POSTGRES_ROLE, ACCESS_REQUEST)


def _now() -> datetime.datetime:
    return datetime.datetime.now(datetime.UTC)
