"""Writes and removes the Secret, Role and RoleBinding of a request.

Only objects that the request controls are ever overwritten or deleted, and a Secret never by the credentials of an older attempt.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from concurrent.futures import Executor, Future
from typing import NoReturn

from leasegate.access.v1 import lease_pb2
from services.common.errors import ConflictError
from watcher.delivery import manifests
from watcher.delivery.namespaces import Enablement, Namespaces
from watcher.kube.client import KubeClient, KubeError
from watcher.kube.resources import ROLE, ROLE_BINDING, SECRET, Body, Key, Resource, key_of, uid_of, version_of
from watcher.kube.result import PendingError, namespace_not_enabled, pending_refusal

REMEMBERED = 4096
"""So many Roles and RoleBindings that were made are deleted without being read; what is older costs a read each."""
REMOVED = (
    (SECRET, manifests.secret_name),
    (ROLE, manifests.reader_role_name),
    (ROLE_BINDING, manifests.reader_role_name),
)


class NotWrittenError(Exception):
    """One of the three could not be written.

    Attributes:
        resource: Its kind.
        message: Why, and what to do.
    """

    def __init__(self, resource: Resource, message: str) -> None:
        super().__init__(message)
        self.resource, self.message = resource, message


class ForeignObjectError(NotWrittenError):
    """An object of the name that is needed belongs to somebody else."""

    def __init__(self, resource: Resource, name: str) -> None:
        super().__init__(
            resource, f"{resource.kind} {name} is there already and is not this request's: remove or rename it"
        )


class SecretPublisher:
    """What a request's subjects are given. Safe for threads.

    Args:
        api: Kubernetes.
        namespaces: What is known of the Secrets.
        beside: Where work goes that is done beside other work.
    """

    def __init__(self, api: KubeClient, namespaces: Namespaces, beside: Executor) -> None:
        self._api, self._namespaces, self._beside = api, namespaces, beside
        self._made = OrderedDict[
            int, str
        ]()  # uids of our newest Roles and RoleBindings by place, so that they are not read to be deleted

    def secret_attempt(self, obj: Body) -> int:
        """Number of the attempt that the Secret holds unharmed; 0 for none.

        In a namespace that is not served, what the status says is believed: nobody can look.

        Raises:
            Waiting: The Secrets of the namespace are not read yet.
        """
        key = key_of(obj)
        claimed = int((obj.get("status") or {}).get("attempt") or 0)
        service = self._namespaces.service(key.namespace)
        if service is Enablement.SERVED:
            secret = self._secret(obj)
            return int(secret.get("secret_attempt", 0)) if secret and manifests.is_ours(secret, obj) else 0
        if service is Enablement.UNKNOWN and claimed:
            raise PendingError("The Secrets of the namespace are being read", reason="Starting", requeue_after_s=0.2)
        return claimed

    def check_writable(self, obj: Body) -> None:
        """Make sure that a credential, once claimed, can be kept.

        Raises:
            Waiting: The namespace is not served.
            Foreign: The Secret's name is taken.
        """
        self.check_served(obj)
        if self._namespaces.service(key_of(obj).namespace) is Enablement.UNKNOWN:
            raise PendingError("The Secrets of the namespace are being read", reason="Starting", requeue_after_s=0.2)
        secret = self._secret(obj)
        if secret and not manifests.is_ours(secret, obj):
            raise ForeignObjectError(SECRET, manifests.secret_name(obj))

    def check_served(self, obj: Body) -> None:
        """Tell apart a namespace that may not be looked into.

        Raises:
            Waiting: The namespace is not served.
        """
        if self._namespaces.service(key_of(obj).namespace) is Enablement.REFUSED:
            raise namespace_not_enabled(key_of(obj).namespace)

    def write_secret(self, obj: Body, credential: lease_pb2.Credential) -> None:
        """Put a credential into the Secret.

        Raises:
            Foreign: The Secret's name is taken.
            Superseded: The Secret holds the credentials of a later attempt.
            Waiting: The namespace is not served, or is being deleted.
            NotWrittenError: Kubernetes failed.
        """
        body, known = manifests.secret_body(obj, credential), self._secret(obj)
        try:
            with self._namespaces.writing(key_of(body), credential.attempt):
                self._namespaces.wrote(
                    self._put(SECRET, obj, body, known, lambda found: _check_later(found, credential.attempt))
                )
        except KubeError as err:
            raise_not_written(err, SECRET, key_of(obj).namespace)

    def write_reading(self, obj: Body) -> None:
        """Make or restore Role and RoleBinding.

        Raises:
            Foreign: A name is taken.
            Waiting: The namespace is not served, or is being deleted.
            NotWrittenError: Kubernetes failed.
        """
        # One after the other: where the watcher has no `bind`, the API server weighs the Role when it checks its
        # RoleBinding.
        for resource, body in ((ROLE, manifests.role_body(obj)), (ROLE_BINDING, manifests.binding_body(obj))):
            try:
                self._restore(resource, obj, body)
            except KubeError as err:
                raise_not_written(err, resource, key_of(obj).namespace)

    def remove(self, obj: Body) -> None:
        """Remove all three, what can be read with first.

        What may not be removed, since the namespace is not served any more, goes with its owner: Kubernetes' garbage
        collector sees to that.

        Raises:
            KubeError: One could not be removed; the others are.
        """
        failed: list[KubeError] = []
        for resource, name in REMOVED:
            try:
                self._remove(resource, obj, name(obj))
            except KubeError as err:
                failed.append(err)
        if failed:
            raise failed[0]

    def start_removing(self, obj: Body) -> Future[None]:
        """Begin to remove all three beside other work, which takes longer; the future raises as ``remove`` does."""
        return self._beside.submit(self.remove, obj)

    def _secret(self, obj: Body) -> Body | None:
        return self._namespaces.secret(Key(key_of(obj).namespace, manifests.secret_name(obj)))

    def _restore(self, resource: Resource, obj: Body, body: Body) -> None:
        try:
            made = self._api.create(resource, body, namespace=key_of(obj).namespace)
        except KubeError as err:
            if err.reason != "AlreadyExists":
                raise
            self._correct(resource, obj, body)
        else:
            self._made[_place(resource, key_of(body))] = uid_of(made)
            if len(self._made) > REMEMBERED:
                self._made.popitem(last=False)

    def _correct(self, resource: Resource, obj: Body, body: Body) -> None:
        name = body["metadata"]["name"]
        found = self._read(resource, obj, name)
        if found is None:
            self._restore(resource, obj, body)
        elif not manifests.is_ours(found, obj):
            raise ForeignObjectError(resource, name)
        elif found.get("roleRef") != body.get("roleRef"):  # which Kubernetes never lets be changed
            self._remove(resource, obj, name)
            self._restore(resource, obj, body)
        elif not manifests.grants_the_same(found, body):
            self._api.replace(resource, _at(body, found))

    def _put(
        self, resource: Resource, obj: Body, body: Body, known: Body | None, check: Callable[[Body], None]
    ) -> Body:
        """Create, or replace what is known; what turns out to be otherwise is read and tried once more."""
        for last in (False, True):
            try:
                if known is None:
                    return self._api.create(resource, body, namespace=key_of(obj).namespace)
                if not manifests.is_ours(known, obj):
                    raise ForeignObjectError(resource, body["metadata"]["name"])
                check(known)
                return self._api.replace(resource, _at(body, known))
            except KubeError as err:
                if err.status not in (404, 409) or err.is_terminating or last:
                    raise
            found = self._read(resource, obj, body["metadata"]["name"])
            known = manifests.remembered(found) if found else None
        raise AssertionError("unreachable")

    def _read(self, resource: Resource, obj: Body, name: str) -> Body | None:
        try:
            return self._api.get(resource, namespace=key_of(obj).namespace, name=name)
        except KubeError as err:
            if err.status == 404:
                return None
            raise

    def _remove(self, resource: Resource, obj: Body, name: str) -> None:
        namespace = key_of(obj).namespace
        made = self._made.pop(_place(resource, Key(namespace, name)), "")
        try:
            if made and self._is_deleted(resource, obj, name, uid=made):
                return
            found = (self._secret(obj) if resource is SECRET else None) or self._read(resource, obj, name)
            if found and manifests.is_ours(found, obj):
                self._api.delete(resource, namespace=namespace, name=name, uid=uid_of(found))
        except KubeError as err:
            if err.status not in (403, 404):
                raise

    def _is_deleted(self, resource: Resource, obj: Body, name: str, *, uid: str) -> bool:
        """Delete what we made; False if something else stands there now."""
        try:
            self._api.delete(resource, namespace=key_of(obj).namespace, name=name, uid=uid)
        except KubeError as err:
            if err.status != 409:
                raise
            return False
        return True


def raise_not_written(err: KubeError, resource: Resource, namespace: str) -> NoReturn:
    """Raise what an error of Kubernetes means where one of the three was to be written."""
    if waiting := pending_refusal(err, namespace):
        raise waiting from err
    raise NotWrittenError(resource, f"{resource.kind} could not be written: {err.message}") from err


def _place(resource: Resource, key: Key) -> int:
    """Stands for a place in a third of the memory; where two had the same, the delete of a wrong uid would be refused,
    and it be read.
    """
    return hash((resource, key))


def _at(body: Body, found: Body) -> Body:
    return {
        **body,
        "metadata": {**body["metadata"], "resourceVersion": version_of(found), "uid": found["metadata"]["uid"]},
    }


def _check_later(found: Body, attempt: int) -> None:
    if int(found.get("secret_attempt", 0)) > attempt:
        raise ConflictError("the Secret holds the credentials of a later attempt")
