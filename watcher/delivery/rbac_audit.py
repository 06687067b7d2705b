"""Which requests' Roles and RoleBindings are not as they are to be: found out for a whole namespace by two lists.

A namespace is gone through when it begins to be served and at each resync, in a queue of its own with one worker. So a look at one request
asks Kubernetes nothing, no request waits for a list, and however many are looked at, a round costs one list of each kind. What a round
finds missing or edited is put right by the request's own worker, which alone knows whether it still is to be there.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from concurrent.futures import Executor, Future

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
    controller_uid,
    is_deleting,
    key_of,
    uid_of,
)
from watcher.kube.result import DONE, Result
from watcher.specs.kinds import ACCESS_REQUEST

LOG = logs.logger(__name__)
PAGE = 250


class RbacAudit:
    """Goes through namespaces, and keeps which requests have to be put right. Safe for threads.

    Args:
        api: Kubernetes.
        objects: The requests.
        namespaces: What is known of the Secrets.
        publisher: Puts a Role and RoleBinding right.
        beside: Where that is done.
        on_due: Told of a request that has to be.
    """

    def __init__(
        self,
        api: KubeClient,
        *,
        objects: Objects,
        namespaces: Namespaces,
        publisher: SecretPublisher,
        beside: Executor,
        on_due: Callable[[Key], None],
    ) -> None:
        self._api, self._objects, self._namespaces = api, objects, namespaces
        self._publisher, self._beside, self._on_due = publisher, beside, on_due
        self._due: set[str] = set()  # uids of requests
        self._refused: set[str] = (
            set()
        )  # namespaces whose Roles and RoleBindings may not be listed, of which that was said

    def reconcile(self, namespace: str) -> Result:
        """Go through a namespace; one that is not served (yet) is gone through when it is.

        Raises:
            KubeError: A list failed.
        """
        if self._namespaces.service(namespace) is not Enablement.SERVED:
            return DONE
        found = self._listed(namespace)
        for obj in self._objects.cache(ACCESS_REQUEST).all(namespace):
            if self._has_credential(obj) and not _is_right(obj, found):
                self._due.add(uid_of(obj))
                self._on_due(key_of(obj))
        return DONE

    def restore(self, obj: Body, *, new: bool) -> Future[None] | None:
        """Begin to put Role and RoleBinding right beside other work, if they are not; what fails is due again.

        Args:
            obj: The request.
            new: Whether there are none yet, as its Secret held no credential before.

        Returns:
            What raises as ``Publisher.write_reading`` does; None if nothing is to be done.
        """
        if not new and uid_of(obj) not in self._due:
            return None
        self._due.discard(uid_of(obj))  # before the work: what a round finds during it counts
        return self._beside.submit(self._restore, obj)

    def forget(self, obj: Body) -> None:
        """Forget a request that is no more."""
        self._due.discard(uid_of(obj))

    def _restore(self, obj: Body) -> None:
        try:
            self._publisher.write_reading(obj)
        except BaseException:
            self._due.add(uid_of(obj))
            raise

    def _has_credential(self, obj: Body) -> bool:
        secret = self._namespaces.secret(Key(key_of(obj).namespace, manifests.secret_name(obj)))
        return (
            bool(secret and secret.get("secret_attempt"))
            and manifests.is_ours(secret or {}, obj)
            and not is_deleting(obj)
        )

    def _listed(self, namespace: str) -> set[int]:
        """What there is of ours, as ``_mark`` marks it; nothing where that may not be listed: each is then read by
        itself.
        """
        try:
            return {_mark(item) for resource in (ROLE, ROLE_BINDING) for item in self._items(resource, namespace)}
        except KubeError as err:
            if err.status != 403:
                raise
            if namespace not in self._refused:
                self._refused.add(namespace)
                do = "kubectl apply -f deploy/rbac/watcher.yaml"
                LOG.warning(
                    "roles may not be listed: each is read by itself", namespace=namespace, error=err.message, do=do
                )
            return set()

    def _items(self, resource: Resource, namespace: str) -> Iterator[Body]:
        token = ""
        while True:
            page = self._api.page(resource, namespace=namespace, limit=PAGE, token=token, labels=manifests.SELECTOR)
            yield from page.get("items") or []
            token = page["metadata"].get("continue", "")
            if not token:
                return


def _is_right(obj: Body, found: set[int]) -> bool:
    try:
        wanted = manifests.role_body(obj), manifests.binding_body(obj)
    except SpecInvalidError:  # which its worker says
        return True
    return all(_mark(body) in found for body in wanted)


def _mark(body: Body) -> int:
    """Stands for name, owner and content: thousands of bodies would take as many kilobytes."""
    return hash((body["metadata"]["name"], controller_uid(body), json.dumps(manifests.granted(body), sort_keys=True)))
