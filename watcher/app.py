"""Builds the watcher from its parts and runs it: caches, queues, controllers, informers and the change feed."""

from __future__ import annotations

import datetime
import math
import random
import threading
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

from prometheus_client import CollectorRegistry

from services.common import logs
from services.common.vault_config.entries import TeamAuth, VaultConfig
from watcher.clients.changefeed import ChangeFeed, Handlers
from watcher.clients.ledger_id import LedgerId
from watcher.clients.stubs import ServiceStubs
from watcher.delivery.namespaces import Enablement, Namespaces
from watcher.delivery.policy_audit import PolicyAudit
from watcher.delivery.policy_trials import PolicyTrials
from watcher.delivery.publisher import SecretPublisher
from watcher.delivery.rbac_audit import RbacAudit
from watcher.kube.backoff import Backoff
from watcher.kube.cache import Cache
from watcher.kube.client import KubeClient
from watcher.kube.controller import Controller
from watcher.kube.informer import Informer, InformerTiming
from watcher.kube.objects import Objects
from watcher.kube.recorder import EventRecorder
from watcher.kube.resources import Key, Resource
from watcher.kube.result import Result
from watcher.kube.workqueue import WorkQueue
from watcher.metrics import WatcherMetrics
from watcher.reconcilers.access_request import AccessRequestReconciler
from watcher.reconcilers.access_request_status import AccessRequestReporter
from watcher.reconcilers.appbinding import AppBindingReconciler
from watcher.reconcilers.appbinding_status import AppBindingReporter
from watcher.reconcilers.change_pace import ChangePace
from watcher.reconcilers.cleanup_role import CleanupRoleReconciler
from watcher.reconcilers.failure_window import FailureWindow
from watcher.reconcilers.policy_condition import PolicyReporter
from watcher.reconcilers.postgres_role import PostgresRoleReconciler
from watcher.reconcilers.secret_engine import SecretEngineReconciler
from watcher.reconcilers.status import StatusReporter
from watcher.reconcilers.vault_targets import VaultTargets
from watcher.specs.appbinding import ServiceAddresses
from watcher.specs.cluster import Cluster
from watcher.specs.indexes import INDEXERS
from watcher.specs.kinds import ACCESS_REQUEST, APP_BINDING, FINALIZER, POSTGRES_ROLE, SECRET_ENGINE
from watcher.specs.status import EngineStatus, PlacedStatus, RoleStatus
from watcher.triggers import QUEUES, Triggers

LOG = logs.logger(__name__)
STOP_S = 8.0
"""Kubernetes gives a container 30 s to end."""
RESYNC_STEP_S = 0.25
"""So often a part of all objects is queued for the resync."""
QUICK_OBJECTS = 50
"""Most objects of a part where all of them have something new to say: 200 a second, or a status write each 5 ms."""


@dataclass(frozen=True, slots=True)
class Settings:
    """What an operator may set, and what tests set otherwise.

    Attributes:
        cluster: Which cluster this is.
        vaults: The Vaults that the operator names.
        addresses: Services that are reached elsewhere than at their names.
        team_auth: What AppBindings may authenticate to Vault by.
        finalizer_timeout_s: How long a deletion waits where Vault answers but does not permit the cleanup.
        resync_s: Every object is reconciled once in so long, whatever changed: how often drift in Vault is checked.
        role_change_pause_s: Time between two changes of one PostgresRole, after three of them.
        workers: Threads of each work queue; one namespace has at most three quarters of them, and keys of the lowest
            priority one quarter.
        parallel_threads: Threads for work in parallel to a worker's own.
        watch_s: Longest time of one watch.
        refused_cap_s: Longest pause between two tries to list a namespace that is not enabled.
        compare_policies: Whether nothing new is issued while the admission policies differ from this release's.
    """

    cluster: Cluster
    vaults: VaultConfig = field(default_factory=VaultConfig)
    addresses: ServiceAddresses = field(default_factory=dict)
    team_auth: TeamAuth = field(default_factory=lambda: TeamAuth(token_audience="leasegate-vault"))  # noqa: S106 - a name
    finalizer_timeout_s: float = 120.0
    resync_s: float = 300.0
    role_change_pause_s: float = 5.0
    workers: Mapping[str, int] = field(
        default_factory=lambda: {
            "access_requests": 16,
            "secret_engines": 5,
            "postgres_roles": 5,
            "appbindings": 3,
            "cleanup_roles": 2,
            "rbac_audit": 1,
        }
    )
    parallel_threads: int = 16
    watch_s: float = 60.0
    refused_cap_s: float = 8.0
    compare_policies: bool = False

    @property
    def connections(self) -> int:
        """How many threads may call Kubernetes at once, without the watches."""
        return sum(self.workers.values()) + self.parallel_threads + 2


class Watcher:
    """Caches, queues, controllers and the change feed of one watcher process.

    Args:
        api: Kubernetes.
        services: The services.
        settings: Its settings.
        clock: Monotonic seconds.
        metrics: Where queues and reconciles are counted.
    """

    def __init__(
        self,
        api: KubeClient,
        services: ServiceStubs,
        settings: Settings,
        *,
        clock: Callable[[], float] = time.monotonic,
        metrics: WatcherMetrics | None = None,
    ) -> None:
        self._metrics = metrics or WatcherMetrics(CollectorRegistry())
        self._api, self._settings, self._clock = api, settings, clock
        self._stop, self._broken = threading.Event(), threading.Event()
        self._recording: threading.Thread | None = None
        self._executor = ThreadPoolExecutor(settings.parallel_threads, thread_name_prefix="parallel")
        self.queues: dict[str, WorkQueue[Any]] = {
            name: WorkQueue(
                self._backoff(0.02, 60.0),
                clock=clock,
                observer=self._metrics.of_queue(name),
                most_of_namespace=max(1, workers - max(1, workers // 4)),
                most_resyncs=max(1, workers // 4),
            )
            for name, workers in settings.workers.items()
        }
        self.triggers = Triggers(self.queues, settings.cluster)
        self._caches = {
            resource: Cache(on_change=self.triggers.on_change(resource), indexers=INDEXERS[resource])
            for resource in QUEUES
        }
        self._objects = Objects(
            api,
            self._caches,
            finalizer=FINALIZER,
            check_namespace=lambda namespace: self.namespaces.check_enabled(namespace),
        )
        self.events = EventRecorder(api, now=_now)
        self.namespaces = Namespaces(
            api,
            timing=self._timing(self._backoff(0.2, settings.refused_cap_s)),
            on_secret=self.triggers.on_secret_change,
            on_enablement=self.triggers.on_enablement_change,
            on_enabled=self._on_namespace_enabled,
            start=self._start_informer,
        )
        self._policies: PolicyAudit | None = None
        self._policies_changed = threading.Event()
        self._policy_reporter = PolicyReporter(
            objects=self._objects, what_is_wrong=self._what_is_wrong, is_refused=self._is_refused, now=_now
        )
        if settings.compare_policies:
            trials = PolicyTrials(api, objects=self._objects, namespaces=self.namespaces)
            self._policies = PolicyAudit(
                api, find_accepted=trials.find_accepted, on_change=self._policies_changed.set, clock=clock
            )
        self._build(services)
        self._informers = [
            Informer(api, resource, cache, timing=self._timing(self._backoff(0.1, 30.0)))
            for resource, cache in self._caches.items()
        ]

    def _build(self, services: ServiceStubs) -> None:
        """Make the reconcilers, a controller for each, and the change feed."""
        settings, objects, cluster, triggers = self._settings, self._objects, self._settings.cluster, self.triggers
        targets = VaultTargets(
            self._api,
            objects,
            cluster=cluster,
            vaults=settings.vaults,
            addresses=settings.addresses,
            allowed=settings.team_auth,
            clock=self._clock,
        )
        failures = FailureWindow(self._clock, finalizer_timeout_s=settings.finalizer_timeout_s)
        app_bindings = AppBindingReconciler(
            objects=objects,
            targets=targets,
            services=services,
            events=self.events,
            reporter=AppBindingReporter(objects=objects, events=self.events, now=_now),
            clock=self._clock,
        )
        common: dict[str, Any] = {
            "objects": objects, "targets": targets, "app_bindings": app_bindings, "services": services,
            "failures": failures, "cluster": cluster,
        }  # fmt: skip
        secret_engines = SecretEngineReconciler(
            **common,
            reporter=self._reporter(SECRET_ENGINE, EngineStatus, "secret engine is ready to use"),
            on_mount_change=triggers.on_mount_change,
            on_roles_paused=triggers.on_roles_paused,
        )
        postgres_roles = PostgresRoleReconciler(
            **common,
            reporter=self._reporter(POSTGRES_ROLE, RoleStatus, "role is ready to use"),
            on_catalog_change=triggers.on_catalog_change,
            pace=ChangePace(self._clock, pause_s=settings.role_change_pause_s),
        )
        publisher = SecretPublisher(self._api, self.namespaces, self._executor, check_policies=self._check_policies)
        rbac_audit = RbacAudit(
            self._api,
            objects=objects,
            namespaces=self.namespaces,
            publisher=publisher,
            executor=self._executor,
            on_due=triggers.on_rbac_drift,
        )
        access_requests = AccessRequestReconciler(
            objects=objects,
            publisher=publisher,
            rbac_audit=rbac_audit,
            services=services,
            reporter=AccessRequestReporter(objects=objects, events=self.events, now=_now),
            failures=failures,
            cluster=cluster,
        )
        cleanup_roles = CleanupRoleReconciler(targets=targets, services=services)
        triggers.connect(
            objects=objects,
            namespaces=self.namespaces,
            app_bindings=app_bindings,
            access_requests=access_requests,
            postgres_roles=postgres_roles,
            cleanup_roles=cleanup_roles,
        )
        reconciles: dict[str, Callable[[Any], Result]] = {
            "access_requests": self._reporting_policies(ACCESS_REQUEST, access_requests.reconcile),
            "secret_engines": self._reporting_policies(SECRET_ENGINE, secret_engines.reconcile),
            "postgres_roles": self._reporting_policies(POSTGRES_ROLE, postgres_roles.reconcile),
            "appbindings": self._reporting_policies(APP_BINDING, app_bindings.reconcile),
            "cleanup_roles": cleanup_roles.reconcile,
            "rbac_audit": rbac_audit.reconcile,
        }
        self.controllers = [
            Controller(
                name,
                self.queues[name],
                reconcile,
                workers=settings.workers[name],
                observer=self._metrics.count_reconcile,
            )
            for name, reconcile in reconciles.items()
        ]
        handlers = Handlers(
            request=triggers.on_access_change,
            cleanup_role=triggers.on_cleanup_role_change,
            vault_auth=triggers.on_auth_needed,
            restarted=triggers.on_access_restarted,
        )
        self.feed = ChangeFeed(
            services, handlers, ledger_id=LedgerId(self._api), backoff=self._backoff(0.1, 5.0), clock=self._clock
        )

    def start(self) -> None:
        """Start the informers, then the workers once all four kinds are listed; none acts on half of the objects."""
        for informer in self._informers:
            self._start_informer(informer, self._stop)
        self._recording = self._run("events", lambda: self.events.run(self._stop))
        self._run("start", self._start_workers)

    def stop(self) -> None:
        """Let workers finish and write the last Events, for ``STOP_S`` seconds at most."""
        end = time.monotonic() + STOP_S
        self._stop.set()
        self.namespaces.close()
        for queue in self.queues.values():
            queue.close()
        for controller in self.controllers:
            controller.stop(end - time.monotonic())
        if self._recording:
            self._recording.join(max(1.0, end - time.monotonic()))
        self._executor.shutdown(wait=False, cancel_futures=True)

    def alive(self) -> bool:
        """Whether no thread has died, and access' feed is polled."""
        threads = not self._broken.is_set() and all(controller.alive() for controller in self.controllers)
        return threads and not self.feed.stuck()

    def events_waiting(self) -> int:
        """How many Events wait to be written."""
        return len(self.events)

    def counts(self) -> dict[str, int]:
        """Number of objects of each kind."""
        return {resource.kind: len(cache) for resource, cache in self._caches.items()}

    def ready(self) -> bool:
        """Whether all kinds are listed and access' feed has answered."""
        return all(informer.synced.is_set() for informer in self._informers) and self.feed.answered.is_set()

    def policies_in_force(self) -> bool:
        """Whether the admission policies are in force."""
        return self._policies is not None and self._policies.what_is_wrong() == ""

    def _start_workers(self) -> None:
        for informer in self._informers:
            while not informer.synced.wait(0.5):
                if self._stop.is_set():
                    return
        if self._policies:
            self._policies.compare()  # first, so that no credential waits for it
            self._policies_changed.clear()  # all objects are about to be queued
        self.triggers.start()
        for controller in self.controllers:
            controller.start()
        self._run("feed", lambda: self.feed.run(self._stop))
        self._run("resync", self._resync)
        if policies := self._policies:
            self._run("policies", lambda: policies.run(self._stop, interval_s=self._settings.resync_s))
        LOG.info("started", objects={resource.plural: len(cache) for resource, cache in self._caches.items()})

    def _check_policies(self) -> None:
        if self._policies:
            self._policies.check_in_force()

    def _what_is_wrong(self) -> str | None:
        return self._policies.what_is_wrong() if self._policies else None

    def _is_refused(self, namespace: str) -> bool:
        return self.namespaces.enablement(namespace) is Enablement.REFUSED

    def _on_namespace_enabled(self, namespace: str) -> None:
        self.triggers.on_namespace_enabled(namespace)
        if self._policies:
            self._policies.ask_comparison()

    def _reporting_policies(self, resource: Resource, reconcile: Callable[[Key], Result]) -> Callable[[Key], Result]:
        """Reconcile an object, and have it say whether the policies are in force, however the reconcile ended."""

        def reconcile_and_report(key: Key) -> Result:
            try:
                return reconcile(key)
            finally:
                self._policy_reporter.report(resource, key)

        return reconcile_and_report

    def _resync(self) -> None:
        """Reconcile every object once an interval, which corrects drift in Vault and whatever no event showed.

        The objects are spread over the interval: 10,000 at once keep watcher and access busy for half a minute. Where
        all of them have something new to say of the policies, another pass begins, and is over in less than that. It
        goes on to its end if that changes again, so that no object is the one that never has its turn.
        """
        while not self._stop.is_set():
            quick = self._policies_changed.is_set()
            self._policies_changed.clear()
            self._policy_reporter.begin_pass()
            steps = resync_steps(sum(self.counts().values()), interval_s=self._settings.resync_s, quick=quick)
            pause_s = min(RESYNC_STEP_S, self._settings.resync_s / steps) if quick else self._settings.resync_s / steps
            for _ in self.triggers.resync(steps):
                if self._stop.wait(pause_s):
                    return
                if self._policies_changed.is_set() and not quick:
                    break

    def _reporter(
        self, resource: Resource, status_type: type[PlacedStatus], ready_message: str
    ) -> StatusReporter[PlacedStatus]:
        return StatusReporter(
            resource,
            status_type,
            objects=self._objects,
            events=self.events,
            ready_message=ready_message,
            now=_now,
            is_refused=self._is_refused,
        )

    def _timing(self, backoff: Backoff) -> InformerTiming:
        return InformerTiming(backoff=backoff, random=random.random, watch_s=self._settings.watch_s)

    def _backoff(self, base_s: float, cap_s: float) -> Backoff:
        return Backoff(base_s=base_s, cap_s=cap_s, random=random.random)

    def _start_informer(self, informer: Informer, stop: threading.Event) -> None:
        self._run("informer", lambda: informer.run(stop))

    def _run(self, name: str, work: Callable[[], None]) -> threading.Thread:
        """Run in a thread of its own; a defect that ends it ends the process, as no other thread replaces it."""

        def guarded() -> None:
            try:
                work()
            except Exception:
                LOG.exception("unhandled exception in thread", thread=name)
                self._broken.set()

        thread = threading.Thread(target=guarded, name=name, daemon=True)
        thread.start()
        return thread


def resync_steps(objects: int, *, interval_s: float, quick: bool) -> int:
    """In how many parts all objects are queued: as many as the interval has steps, or as few as ``QUICK_OBJECTS`` ask.

    Args:
        objects: Number of objects.
        interval_s: The resync interval in seconds.
        quick: Whether all objects have something new to say.
    """
    steps = max(1, int(interval_s / RESYNC_STEP_S))
    return min(steps, max(1, math.ceil(objects / QUICK_OBJECTS))) if quick else steps


def _now() -> datetime.datetime:
    return datetime.datetime.now(datetime.UTC)
