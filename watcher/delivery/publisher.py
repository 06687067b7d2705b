"""Writes and removes the Secret, Role and RoleBinding of an access request.

It overwrites and deletes only objects that the request controls, and never replaces the credential of a later attempt.
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
from watcher.specs.status import RequestStatus

NAMES = (
    (SECRET, manifests.secret_name),
    (ROLE, manifests.reader_role_name),
    (ROLE_BINDING, manifests.reader_role_name),
)
"""What a request owns, in the order of its removal: first what the credential can be read from."""
_MOST_REMEMBERED = 1000


class NotWrittenError(Exception):
    """Kubernetes did not accept the Secret, the Role or the RoleBinding.

    Attributes:
        resource: Which of the three.
        message: Why, and what to do.
    """

    def __init__(self, resource: Resource, message: str) -> None:
        super().__init__(message)
        self.resource, self.message = resource, message


class ForeignObjectError(NotWrittenError):
    """An object of the needed name exists and belongs to another owner."""

    def __init__(self, resource: Resource, name: str) -> None:
        super().__init__(
            resource, f"{resource.kind} {name} exists and does not belong to this request: remove or rename it"
        )


class SecretPublisher:
    """Writes and removes what the subjects of a request get. Safe for threads.

    Args:
        api: Kubernetes.
        namespaces: The enabled namespaces and their Secrets.
        executor: Runs removals in parallel with other work.
        check_policies: Raises ``PendingError`` while the admission policies are not in force.
    """

    def __init__(
        self,
        api: KubeClient,
        namespaces: Namespaces,
        executor: Executor,
        *,
        check_policies: Callable[[], None] = lambda: None,
    ) -> None:
        self._api, self._namespaces, self._executor = api, namespaces, executor
        self._check_policies = check_policies
        # By request uid, of the newest requests: the resourceVersions of Role and RoleBinding as they were created.
        self._created = OrderedDict[str, tuple[str, ...]]()

    def secret_attempt(self, obj: Body) -> int:
        """Number of the attempt whose credential is in the Secret; 0 for none.

        In a namespace that is not enabled nobody can look, so that the status counts.

        Raises:
            PendingError: The Secrets of the namespace are not listed yet.
        """
        key = key_of(obj)
        in_status = RequestStatus.from_object(obj).attempt
        enablement = self._namespaces.enablement(key.namespace)
        if enablement is Enablement.ENABLED:
            secret = self._get_secret(obj)
            return int(secret.get("secret_attempt", 0)) if secret and manifests.is_controlled_by(secret, obj) else 0
        if enablement is Enablement.UNKNOWN and in_status:
            raise _secrets_not_listed()
        return in_status

    def check_writable(self, obj: Body) -> None:
        """Check that a Secret can be written, before a credential is issued for it.

        Raises:
            PendingError: The namespace is not enabled, its Secrets are not listed yet, or the admission policies are
                not in force.
            ForeignObjectError: The Secret's name is taken.
            NotWrittenError: The Secret takes no other credential, and its finalizers keep it from being replaced.
        """
        self.check_enabled(obj)
        if self._namespaces.enablement(key_of(obj).namespace) is Enablement.UNKNOWN:
            raise _secrets_not_listed()
        self._check_policies()
        if secret := self._get_secret(obj):
            _check_takes_credential(secret, obj)

    def check_enabled(self, obj: Body) -> None:
        """Check that the namespace is not refused.

        Raises:
            PendingError: The namespace is not enabled.
        """
        if self._namespaces.enablement(key_of(obj).namespace) is Enablement.REFUSED:
            raise namespace_not_enabled(key_of(obj).namespace)

    def write_secret(self, obj: Body, credential: lease_pb2.Credential) -> None:
        """Write a credential into the Secret.

        Raises:
            ForeignObjectError: The Secret's name is taken.
            ConflictError: The Secret has the credential of a later attempt.
            PendingError: The namespace is not enabled, or is being deleted.
            NotWrittenError: Kubernetes failed.
        """
        body, known = manifests.secret_body(obj, credential), self._get_secret(obj)
        try:
            written = self._write(obj, body, known, attempt=credential.attempt)
        except KubeError as err:
            raise_not_written(err, SECRET, key_of(obj).namespace)
        self._namespaces.put_secret(written)

    def write_rbac(self, obj: Body) -> None:
        """Create the Role and the RoleBinding, or correct them.

        One after the other: without the verb ``bind`` the API server checks a RoleBinding against the Role it names.

        Raises:
            ForeignObjectError: A name is taken.
            PendingError: The namespace is not enabled, or is being deleted.
            NotWrittenError: Kubernetes failed.
        """
        created = list[str]()
        for resource, body in ((ROLE, manifests.role_body(obj)), (ROLE_BINDING, manifests.role_binding_body(obj))):
            try:
                created.append(self._create_or_correct(resource, obj, body))
            except KubeError as err:
                raise_not_written(err, resource, key_of(obj).namespace)
        self._created[uid_of(obj)] = tuple(created)
        if len(self._created) > _MOST_REMEMBERED:
            self._created.popitem(last=False)

    def remove_objects(self, obj: Body) -> None:
        """Remove the Secret, the Role and the RoleBinding.

        What may not be removed, because the namespace is no longer enabled, Kubernetes' garbage collector removes with
        its owner. A Role or RoleBinding that is still as this process created it is not read before.

        Raises:
            KubeError: One could not be removed; the others are.
        """
        failed: list[KubeError] = []
        created = dict(zip((ROLE, ROLE_BINDING), self._created.pop(uid_of(obj), ()), strict=False))
        for resource, name in NAMES:
            try:
                self._remove(resource, obj, name(obj), version=created.get(resource, ""))
            except KubeError as err:
                failed.append(err)
        if failed:
            raise failed[0]

    def start_removal(self, obj: Body) -> Future[None]:
        """Start ``remove_objects`` in parallel with other work; the future raises as it does."""
        return self._executor.submit(self.remove_objects, obj)

    def forget_request(self, obj: Body) -> None:
        """Forget what was created for a request that is no more."""
        self._created.pop(uid_of(obj), None)

    def _get_secret(self, obj: Body) -> Body | None:
        return self._namespaces.get_secret(Key(key_of(obj).namespace, manifests.secret_name(obj)))

    def _create_or_correct(self, resource: Resource, obj: Body, body: Body) -> str:
        """Create an object and return its resourceVersion; correct one that is there, and return nothing."""
        try:
            return version_of(self._api.create(resource, body, namespace=key_of(obj).namespace))
        except KubeError as err:
            if err.reason != "AlreadyExists":
                raise
            self._correct(resource, obj, body)
            return ""

    def _correct(self, resource: Resource, obj: Body, body: Body) -> None:
        name = body["metadata"]["name"]
        found = self._read(resource, obj, name)
        if found is None:
            self._create_or_correct(resource, obj, body)
        elif not manifests.may_be_written(found, obj):
            raise ForeignObjectError(resource, name)
        elif found.get("roleRef") != body.get("roleRef"):  # which Kubernetes never changes
            self._remove(resource, obj, name)
            self._create_or_correct(resource, obj, body)
        elif not (manifests.is_controlled_by(found, obj) and manifests.grants_the_same(found, body)):
            self._api.replace(resource, manifests.written_into(found, body))

    def _write(self, obj: Body, body: Body, known: Body | None, *, attempt: int) -> Body:
        """Create the Secret, or write into the known one; if another writer was faster, read it and try once more.

        Always at the uid and version that are known, so that a paused former leader overwrites nothing newer.
        """
        namespace, name = key_of(obj).namespace, body["metadata"]["name"]
        for last in (False, True):
            try:
                if known and self._is_replaced(known, obj, attempt=attempt):
                    known = None
                if known is None:
                    return self._api.create(SECRET, body, namespace=namespace)
                return self._api.patch(SECRET, manifests.changes_for(known, body), namespace=namespace, name=name)
            except KubeError as err:
                if err.status not in (404, 409) or err.is_terminating or last:
                    raise
            found = self._read(SECRET, obj, name)
            known = manifests.without_values(found) if found else None
        raise AssertionError("unreachable")

    def _is_replaced(self, known: Body, obj: Body, *, attempt: int) -> bool:
        """Check that the request may write into a Secret; delete one that takes no change, and answer whether."""
        _check_takes_credential(known, obj)
        _check_not_later(known, attempt)
        if not manifests.obstacle_of(known):
            return False
        namespace, name = key_of(known).namespace, key_of(known).name
        self._api.delete(SECRET, namespace=namespace, name=name, uid=uid_of(known), version=version_of(known))
        return True

    def _read(self, resource: Resource, obj: Body, name: str) -> Body | None:
        try:
            return self._api.get(resource, namespace=key_of(obj).namespace, name=name)
        except KubeError as err:
            if err.status == 404:
                return None
            raise

    def _remove(self, resource: Resource, obj: Body, name: str, *, version: str = "") -> None:
        try:
            if version and self._is_deleted(resource, obj, name, version=version):
                return
            found = (self._get_secret(obj) if resource is SECRET else None) or self._read(resource, obj, name)
            if found and manifests.is_controlled_by(found, obj):
                self._api.delete(resource, namespace=key_of(obj).namespace, name=name, uid=uid_of(found))
        except KubeError as err:
            if err.status not in (403, 404):
                raise

    def _is_deleted(self, resource: Resource, obj: Body, name: str, *, version: str) -> bool:
        """Delete an object of this version; of another version nobody knows whose it is before it is read."""
        try:
            self._api.delete(resource, namespace=key_of(obj).namespace, name=name, version=version)
        except KubeError as err:
            if err.status == 409:
                return False
            raise
        return True


def raise_not_written(err: KubeError, resource: Resource, namespace: str) -> NoReturn:
    """Raise what an error of Kubernetes means for a write of one of the three."""
    if pending := pending_refusal(err, namespace):
        raise pending from err
    raise NotWrittenError(resource, f"{resource.kind} could not be written: {err.message}") from err


def _secrets_not_listed() -> PendingError:
    return PendingError("The Secrets of the namespace are being listed", reason="Starting", requeue_after_s=0.2)


def _check_takes_credential(secret: Body, obj: Body) -> None:
    """Refuse a Secret of somebody else, and one that can neither be changed nor be replaced."""
    name = key_of(secret).name
    if not manifests.may_be_written(secret, obj):
        raise ForeignObjectError(SECRET, name)
    obstacle, held = manifests.obstacle_of(secret), manifests.finalizers_of(secret)
    if obstacle and held:
        raise NotWrittenError(
            SECRET,
            f"Secret {name} {obstacle}, and is kept by the finalizer(s) {', '.join(held)}, so that it takes no"
            " credential and cannot be replaced: have their owner remove them, or remove them yourself",
        )


def _check_not_later(found: Body, attempt: int) -> None:
    if int(found.get("secret_attempt", 0)) > attempt:
        raise ConflictError("the Secret has the credential of a later attempt")
