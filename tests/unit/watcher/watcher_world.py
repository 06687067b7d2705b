"""The whole watcher over a Kubernetes and services in memory: no threads, no waiting, a clock that tests move."""

from __future__ import annotations

import threading
from typing import Any, cast

from tests.fakes.kube import FakeKube
from tests.fakes.peers import PlayedAccess, PlayedEngine, PlayedRoles
from tests.vaults import config, entry
from watcher.app import Settings, Watcher
from watcher.clients.stubs import ServiceStubs
from watcher.kube.informer import Informer
from watcher.kube.recorder import EventRecorder
from watcher.kube.resources import SECRET, SERVICE_ACCOUNT, Body, Resource, key_of
from watcher.specs.cluster import Cluster
from watcher.specs.kinds import ACCESS_REQUEST, APP_BINDING, POSTGRES_ROLE, SECRET_ENGINE

CLUSTER = Cluster("", "kube-system-uid")
MOUNT = "my-postgres-se"
VAULT = "https://vault.vault.svc:8200"
"""What every Vault of the tests is at, whatever an AppBinding names."""
OTHER_VAULT = "https://vault-two.vault.svc:8200"
VAULTS = config(
    entry(VAULT, "https://vault.*.svc:8200", "https://127.0.0.1:8200"),
    entry(OTHER_VAULT, "https://vault-two.*.svc:8200", name="two"),
)


class ByHand(Watcher):
    """A watcher whose informers list once and then get their changes from the world."""

    def _start_informer(self, informer: Informer, stop: threading.Event) -> None:
        informer.list_and_watch()


def write_events(recorder: EventRecorder) -> None:
    """Write the Events that wait."""
    stop = threading.Event()
    stop.set()
    recorder.run(stop)


class World:
    """A namespace ``demo`` that is enabled, and what is in it."""

    def __init__(self) -> None:
        self.now, self.vaults, self.compare_policies = 1000.0, VAULTS, False
        self.kube, self.engine, self.roles, self.access = FakeKube(), PlayedEngine(), PlayedRoles(), PlayedAccess()
        self.start()

    def start(self) -> None:
        """Start the watcher, or another one in place of one that died."""
        stubs: Any = {"engine": self.engine, "roles": self.roles, "access": self.access, "requester": self.access}
        settings = Settings(cluster=CLUSTER, vaults=self.vaults, compare_policies=self.compare_policies)
        self.watcher = ByHand(self.kube, ServiceStubs(**stubs), settings, clock=lambda: self.now)
        self.kube.listeners[:] = [self._notify]
        for informer in self.watcher._informers:
            informer.list_and_watch()
        if policies := self.watcher._policies:
            policies.compare()
            self.watcher._policies_changed.clear()
        self.watcher.triggers.start()

    def settle(self, *, limit: int = 500) -> None:
        """Work until nothing is ready."""
        for _ in range(limit):
            if not any(self._one(controller) for controller in self.watcher.controllers):
                write_events(self.watcher.events)
                return
        raise AssertionError("it never comes to rest")

    def advance(self, seconds: float, *, step_s: float = 0.25) -> None:
        """Let time pass, working whenever something is due."""
        end = self.now + seconds
        while self.now < end:
            self.now = min(end, self.now + step_s)
            self.settle()

    def follow_feed(self) -> None:
        """Poll the feed once and do what it says."""
        self.watcher.feed.poll()
        self.settle()

    def put(self, resource: Resource, name: str, namespace: str = "demo", **body: Any) -> Body:
        """Create an object as a user."""
        annotations = body.pop("annotations", {})
        return self.kube.put(
            resource, {"metadata": {"name": name, "annotations": annotations}, **body}, namespace=namespace
        )

    def status(self, resource: Resource, name: str, namespace: str = "demo") -> Body:
        """The status of an object."""
        found = self.kube.see(resource, f"{namespace}/{name}")
        assert found is not None, f"{resource.kind} {name} is gone"
        return cast(Body, found.get("status") or {})

    def uid(self, resource: Resource, name: str, namespace: str = "demo") -> str:
        """The uid of an object."""
        found = self.kube.see(resource, f"{namespace}/{name}")
        assert found is not None, f"{resource.kind} {name} is gone"
        return str(found["metadata"]["uid"])

    def condition(self, resource: Resource, name: str, kind: str) -> Body:
        """A condition; empty where there is none."""
        return next((c for c in self.status(resource, name).get("conditions") or [] if c["type"] == kind), {})

    # -- the guide's objects

    def guide(self) -> None:
        """All of the guide's objects, converged."""
        self.vault()
        self.database()
        self.secret_engine()
        self.role()
        self.request()
        self.settle()

    def vault(self, name: str = "vault", **config: Any) -> None:
        service = {"name": "vault", "port": 8200, "scheme": "HTTPS"}
        parameters = {"vaultRole": "vault-policy-controller", "serviceAccountName": "vault", "path": "kubernetes"}
        if not self.kube.see(SERVICE_ACCOUNT, "demo/vault"):
            self.put(SERVICE_ACCOUNT, "vault")
        self.put(APP_BINDING, name, spec={"clientConfig": {"service": service, **config}, "parameters": parameters})

    def database(self, name: str = "postgres-app", namespace: str = "demo", *, allow_from: str = "") -> None:
        service = {
            "name": "postgres",
            "port": 5432,
            "scheme": "postgresql",
            "path": "postgres",
            "query": "sslmode=disable",
        }
        self.put(
            APP_BINDING,
            name,
            namespace,
            spec={"secret": {"name": "postgres-user-cred"}, "clientConfig": {"service": service}},
            annotations={"leasegate.dev/allow-from": allow_from} if allow_from else {},
        )
        self.put(SECRET, "postgres-user-cred", namespace, data={"username": "cG9zdGdyZXM=", "password": "cm9vdA=="})

    def secret_engine(self, name: str = "postgresql-engine", path: str = MOUNT, database: str = "postgres-app") -> None:
        spec = {
            "vaultRef": {"name": "vault"},
            "path": path,
            "postgres": {"databaseRef": {"name": database, "namespace": "demo"}},
        }
        self.put(SECRET_ENGINE, name, spec=spec)

    def role(self, name: str = "psql-role", **changes: Any) -> None:
        spec = {
            "vaultRef": {"name": "vault"},
            "path": MOUNT,
            "databaseRef": {"name": "postgres-app", "namespace": "demo"},
            "creationStatements": ["CREATE ROLE"],
            "defaultTTL": "1h",
            "maxTTL": "24h",
        }
        self.put(POSTGRES_ROLE, name, spec=spec | changes)

    def request(self, name: str = "rqst", **changes: Any) -> None:
        spec = {
            "roleRef": {"kind": "PostgresRole", "name": "psql-role", "namespace": "demo"},
            "subjects": [{"kind": "ServiceAccount", "name": "demo-sa", "namespace": "demo"}],
        }
        self.put(ACCESS_REQUEST, name, spec=spec | changes, annotations={"leasegate.dev/requested-by": "alice"})

    def decide(self, kind: str = "Approved", name: str = "rqst") -> None:
        """Write a decision as ``kubectl vault`` does."""
        condition = {
            "type": kind,
            "status": "True",
            "reason": "KubectlApprove",
            "message": "by hand",
            "lastUpdateTime": "2026-01-01T00:00:00Z",
            "approver": "bob",
            "digest": self.status(ACCESS_REQUEST, name).get("digest", ""),
        }

        def change(obj: Body) -> None:
            obj.setdefault("status", {}).setdefault("conditions", []).append(condition)

        self.kube.edit(ACCESS_REQUEST, f"demo/{name}", change)

    def delete(self, resource: Resource, name: str, namespace: str = "demo") -> None:
        """Delete an object as a user."""
        self.kube.delete(resource, namespace=namespace, name=name)

    def secret(self, name: str = "rqst") -> Body | None:
        """The Secret of a request."""
        ours = [s for s in self.kube.all(SECRET) if s["metadata"]["name"].startswith(f"{name}-")]
        assert len(ours) < 2
        return ours[0] if ours else None

    def _one(self, controller: Any) -> bool:
        key = controller.queue.next_key(block=False)
        if key is None:
            return False
        controller.reconcile_key(key)
        controller.queue.mark_done(key)
        return True

    def _notify(self, kind: str, resource: Resource, obj: Body) -> None:
        if resource is SECRET:
            known = self.watcher.namespaces._watched.get(key_of(obj).namespace)
            store = known.secrets if known else None
        else:
            store = self.watcher._caches.get(resource)
        if store is not None:
            store.remove(obj) if kind == "DELETED" else store.put(obj)
