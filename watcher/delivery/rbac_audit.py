"""Finds the access requests whose Role or RoleBinding is missing or was edited: two lists for a whole namespace.

A namespace is audited when it becomes enabled and at each resync, in a queue of its own with one worker. So the
reconcile of one request reads neither Role nor RoleBinding, no request waits for a list, and an audit costs one list of
each kind however many requests there are. The request's own worker corrects what the audit finds, since it alone knows
whether the request still grants something.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Executor, Future
from typing import TypeAlias

from services.common import logs
from services.common.errors import SpecInvalidError
from watcher.delivery import manifests
from watcher.delivery.namespaces import Enablement, Namespaces
from watcher.delivery.publisher import SecretPublisher
from watcher.kube.client import KubeClient, KubeError
from watcher.kube.objects import Objects
from watcher.kube.resources import (
    ROLE,
    ROLE_BINDING,
    Body,
    Key,
    Resource,
    controller_name,
    is_deleting,
    key_of,
    uid_of,
)
from watcher.kube.result import DONE, Result
from watcher.specs.kinds import ACCESS_REQUEST

LOG = logs.logger(__name__)
PAGE = 250
Name: TypeAlias = tuple[Resource, str]
"""A Role or a RoleBinding of the namespace, by kind and name."""


class RbacAudit:
    """Audits namespaces, and keeps which requests need a correction. Safe for threads.

    Args:
        api: Kubernetes.
        objects: The requests.
        namespaces: The enabled namespaces and their Secrets.
        publisher: Writes a request's Role and RoleBinding.
        executor: Runs those writes in parallel with other work.
        on_due: Called with each request that needs a correction.
    """

    def __init__(
        self,
        api: KubeClient,
        *,
        objects: Objects,
        namespaces: Namespaces,
        publisher: SecretPublisher,
        executor: Executor,
        on_due: Callable[[Key], None],
    ) -> None:
        self._api, self._objects, self._namespaces = api, objects, namespaces
        self._publisher, self._executor, self._on_due = publisher, executor, on_due
        self._due: set[str] = set()  # uids of requests
        self._not_listable: set[str] = set()  # namespaces of which the log says already that a list is refused

    def reconcile(self, namespace: str) -> Result:
        """Audit a namespace; one that is not enabled is audited when it becomes so.

        Raises:
            KubeError: A list failed.
        """
        if self._namespaces.enablement(namespace) is not Enablement.ENABLED:
            return DONE
        correct = self._list_correct(namespace)
        for obj in self._objects.cache(ACCESS_REQUEST).all(namespace):
            if self._has_credential(obj) and _wanted(obj).keys() - correct:
                self._due.add(uid_of(obj))
                self._on_due(key_of(obj))
        return DONE

    def start_correction(self, obj: Body, *, first: bool) -> Future[None] | None:
        """Start to write Role and RoleBinding in parallel with other work, if they are due; a failure is due again.

        Args:
            obj: The request.
            first: Whether there are none yet, as its Secret had no credential before.

        Returns:
            A future that raises as ``SecretPublisher.write_rbac`` does; None if nothing is due.
        """
        if not first and uid_of(obj) not in self._due:
            return None
        self._due.discard(uid_of(obj))  # before the write: what an audit finds during it counts
        return self._executor.submit(self._correct, obj)

    def forget_request(self, obj: Body) -> None:
        """Forget a request that no longer grants anything."""
        self._due.discard(uid_of(obj))
        self._publisher.forget_request(obj)

    def _correct(self, obj: Body) -> None:
        try:
            self._publisher.write_rbac(obj)
        except BaseException:
            self._due.add(uid_of(obj))
            raise

    def _has_credential(self, obj: Body) -> bool:
        secret = self._namespaces.get_secret(Key(key_of(obj).namespace, manifests.secret_name(obj)))
        if secret is None or not secret.get("secret_attempt"):
            return False
        return manifests.is_controlled_by(secret, obj) and not is_deleting(obj)

    def _list_correct(self, namespace: str) -> set[Name]:
        """The Roles and RoleBindings that are as their request wants them; of thousands no more than the names is kept.

        Where they may not be listed the result is empty, so that each request reads its own.
        """
        try:
            return {
                (resource, item["metadata"]["name"])
                for resource in (ROLE, ROLE_BINDING)
                for item in self._list_items(resource, namespace)
                if self._is_correct(resource, item)
            }
        except KubeError as err:
            if err.status != 403:
                raise
            if namespace not in self._not_listable:
                self._not_listable.add(namespace)
                LOG.warning(
                    "roles cannot be listed: each is read by itself",
                    namespace=namespace,
                    error=err.message,
                    do="kubectl apply -f deploy/rbac/watcher.yaml",
                )
            return set()

    def _is_correct(self, resource: Resource, item: Body) -> bool:
        key = key_of(item)
        obj = self._objects.get(ACCESS_REQUEST, Key(key.namespace, controller_name(item)))
        if obj is None or not manifests.is_controlled_by(item, obj):
            return False
        wanted = _wanted(obj).get((resource, key.name))
        return wanted is not None and manifests.grants_the_same(item, wanted)

    def _list_items(self, resource: Resource, namespace: str) -> Iterator[Body]:
        token = ""
        while True:
            page = self._api.page(resource, namespace=namespace, limit=PAGE, token=token, labels=manifests.SELECTOR)
            yield from page.get("items") or []
            token = page["metadata"].get("continue", "")
            if not token:
                return


def _wanted(obj: Body) -> Mapping[Name, Body]:
    """What a request wants; nothing where its spec is wrong, which its own reconcile reports."""
    try:
        bodies = {ROLE: manifests.role_body(obj), ROLE_BINDING: manifests.role_binding_body(obj)}
    except SpecInvalidError:
        return {}
    return {(resource, body["metadata"]["name"]): body for resource, body in bodies.items()}
