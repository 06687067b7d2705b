"""DatabaseAccessRequests on the local stack, in bulk: made, approved, denied, deleted, their Secrets lost."""

from __future__ import annotations

import base64
import json
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import psycopg
import yaml

from cli.kubectl_vault.deciding import Clock, decide
from cli.kubectl_vault.decisions import Decision, Verdict
from cli.kubectl_vault.errors import CommandError
from cli.kubectl_vault.resource import Named
from dev.demo.story import EXAMPLES, REPOSITORY
from dev.stack.stack import LocalStack
from tests.deciding import FastRequests, user_name
from tests.eventually import eventually
from watcher.kube.client import HttpKubeClient, KubeError
from watcher.kube.connection import connect
from watcher.kube.resources import SECRET, Body
from watcher.specs.kinds import ACCESS_REQUEST

NAMESPACE = "demo"
MOUNT = "my-postgres-se"
ROLES = {"psql-role": ("1h", "24h"), "short-role": ("12s", "36s")}
FILES = ("postgres-app", "postgresSecretEngine", "postgresRole")


@dataclass(frozen=True, slots=True)
class Shown:
    """One request as Kubernetes shows it."""

    name: str
    uid: str
    approved: bool
    over: bool
    secret: str
    conditions: tuple[str, ...]


class Cluster:
    """The requests of one namespace of a stack."""

    def __init__(self, stack: LocalStack) -> None:
        self.stack = stack
        self._api = HttpKubeClient(connect(str(stack.kubeconfig), pool_size=4))
        self._requests = FastRequests(self._api)
        self._approver = user_name(stack)

    def prepare(self) -> None:
        """Serve the namespace, with engine and roles as in the guide and one role whose leases live for seconds."""
        self.stack.kubectl("create", "namespace", NAMESPACE)
        self.stack.kubectl("apply", "-n", NAMESPACE, "-f", str(self.stack.enabled_namespace(NAMESPACE)))
        for name in FILES:
            self.stack.kubectl("apply", "-f", str(REPOSITORY / EXAMPLES / f"{name}.yaml"))
        role = yaml.safe_load((REPOSITORY / EXAMPLES / "postgresRole.yaml").read_text())
        role["metadata"]["name"] = "short-role"
        role["spec"] |= dict(zip(("defaultTTL", "maxTTL"), ROLES["short-role"], strict=True))
        self.stack.kubectl("apply", "-f", "-", input=json.dumps(role))
        eventually(lambda: all(self._succeeded(name) for name in ROLES), timeout_s=90, what="the roles")

    def _succeeded(self, role: str) -> bool:
        found = self.stack.kubectl("get", "-n", NAMESPACE, f"postgresrole/{role}", "-o", "jsonpath={.status.phase}")
        return found.stdout == "Success"

    def create(self, name: str, *, role: str) -> None:
        """Make a request."""
        subjects = [{"kind": "ServiceAccount", "name": "demo-sa", "namespace": NAMESPACE}]
        spec = {"roleRef": {"kind": "PostgresRole", "name": role, "namespace": NAMESPACE}, "subjects": subjects}
        meta = {"name": name, "namespace": NAMESPACE}
        body = {"apiVersion": ACCESS_REQUEST.api_version, "kind": ACCESS_REQUEST.kind, "metadata": meta, "spec": spec}
        self._api.create(ACCESS_REQUEST, body, namespace=NAMESPACE)

    def decide(self, name: str, verdict: Verdict) -> bool:
        """Decide it as ``kubectl vault`` does; answers False where that is refused now."""
        clock = Clock(lambda: datetime.now(UTC), time.monotonic, time.sleep)
        try:
            decide(self._requests, Named(name, NAMESPACE), Decision(verdict, self._approver), clock=clock, wait_s=0)
        except CommandError:
            return False
        return True

    def delete(self, name: str) -> None:
        """Delete it."""
        self._delete(ACCESS_REQUEST, name)

    def lose_secret(self, shown: Shown) -> None:
        """Somebody deletes the Secret by hand."""
        if shown.secret:
            self._delete(SECRET, shown.secret)

    def _delete(self, resource: Any, name: str) -> None:
        try:
            self._api.delete(resource, namespace=NAMESPACE, name=name)
        except KubeError as err:
            if err.status != 404:
                raise

    def requests(self) -> list[Shown]:
        """All that there are."""
        return [_shown(obj) for obj in self._api.page(ACCESS_REQUEST, namespace=NAMESPACE)["items"]]

    def secrets(self) -> dict[str, Body]:
        """The Secrets of requests, by the request's uid."""
        found: dict[str, Body] = {}
        for secret in self._api.page(SECRET, namespace=NAMESPACE)["items"]:
            for owner in secret["metadata"].get("ownerReferences") or []:
                if owner["kind"] == ACCESS_REQUEST.kind:
                    assert owner["uid"] not in found, "two Secrets of one request"
                    found[owner["uid"]] = secret
        return found

    def works(self, secret: Mapping[str, Any]) -> bool:
        """Whether one can log in with a Secret."""
        user, password = (base64.b64decode(secret["data"][key]).decode() for key in ("username", "password"))
        with suppress(psycopg.OperationalError):
            psycopg.connect(self.stack.postgres_url, user=user, password=password, connect_timeout=5).close()
            return True
        return False


def user_of(secret: Mapping[str, Any]) -> str:
    """The database user of a Secret."""
    return base64.b64decode(secret["data"]["username"]).decode()


def _shown(obj: Body) -> Shown:
    status = obj.get("status") or {}
    conditions = {c["type"]: c for c in status.get("conditions") or []}
    over = "Denied" in conditions or bool(obj["metadata"].get("deletionTimestamp"))
    said = tuple(
        f"{c['type']}={c['status']} {c.get('reason', '')}: {c.get('message', '')}"[:160] for c in conditions.values()
    )
    meta = obj["metadata"]
    secret = (status.get("secret") or {}).get("name", "")
    return Shown(
        meta["name"],
        meta["uid"],
        approved="Approved" in conditions and not over,
        over=over,
        secret=secret,
        conditions=said,
    )
