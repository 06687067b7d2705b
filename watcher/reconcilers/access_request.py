"""DatabaseAccessRequests: their wish and their decisions go to access, and what access answers to do next is done.

The way from a decision to the Secret is short on purpose: the watch's object, one EnsureAccessRequest that claims, the Secret. Role, RoleBinding,
acknowledge and status come after it, behind the Secrets that others wait for. Nothing is read from Kubernetes on the way.
"""

from __future__ import annotations

import threading
from concurrent.futures import Future, wait
from dataclasses import dataclass

from leasegate.access.v1 import access_request_pb2, lease_pb2, requester_service_pb2, watcher_service_pb2
from leasegate.types.v1 import types_pb2
from services.common import failpoints
from services.common.errors import AccessEndedError, ApprovalDeniedError, ApprovalRequiredError, LeasegateError
from services.common.rpc import status
from watcher.clients.stubs import ServiceStubs
from watcher.delivery.publisher import NotWrittenError, SecretPublisher
from watcher.delivery.rbac_audit import RbacAudit
from watcher.kube.objects import Objects
from watcher.kube.resources import Body, Key, has_finalizer, is_deleting, key_of, uid_of
from watcher.kube.result import DONE, PendingError, Result, result_of
from watcher.reconcilers.access_request_status import AccessRequestReporter
from watcher.reconcilers.failure_window import FailureWindow
from watcher.reconcilers.request_status import RequestStatus, request_status
from watcher.reconcilers.status import reason_of
from watcher.specs.access_request import ensure_access_request
from watcher.specs.cluster import Cluster
from watcher.specs.kinds import ACCESS_REQUEST, FINALIZER

LET_GO_AFTER_S = 3.0
"""A deletion holds the object no longer than 5 s, whatever Vault does: this, and what a busy machine needs beside it.
"""
NOT_WRITTEN = {
    "Secret": "FailedToCreateSecret",
    "Role": "FailedToCreateRole",
    "RoleBinding": "FailedToCreateRoleBinding",
}
PAGE = 500
ENDED = (access_request_pb2.ACCESS_STATE_CLOSED, access_request_pb2.ACCESS_STATE_REVOKING)
OVERTAKEN = (ApprovalRequiredError, ApprovalDeniedError, AccessEndedError)
"""What a claim answers when the request is not any more what EnsureAccessRequest has said: it is asked anew what to do."""


@dataclass(frozen=True, slots=True)
class _Fresh:
    """A credential that was just written into a Secret: its attempt, and the one that the Secret held before."""

    attempt: int
    before: int


class AccessRequestReconciler:
    """Reconciles DatabaseAccessRequests.

    Args:
        objects: The objects.
        publisher: Secret, Role and RoleBinding.
        readers: Which Roles and RoleBindings have to be put right.
        peers: The services.
        reporter: Says how each stands.
        patience: Since when each fails.
        cluster: Where they are.
    """

    def __init__(
        self,
        *,
        objects: Objects,
        publisher: SecretPublisher,
        readers: RbacAudit,
        peers: ServiceStubs,
        reporter: AccessRequestReporter,
        patience: FailureWindow,
        cluster: Cluster,
    ) -> None:
        self._objects, self._publisher, self._peers, self._reporter = objects, publisher, peers, reporter
        self._readers, self._patience, self._cluster = readers, patience, cluster
        self._gone: dict[
            Key, dict[str, types_pb2.ObjectRef]
        ] = {}  # by uid: objects that may be no more, whose access has to end
        self._released: set[str] = set()  # uids of which access has taken the end
        self._cleared: set[str] = set()  # uids that are being deleted, whose Secret, Role and RoleBinding are gone
        self._fresh: dict[str, _Fresh] = {}  # by uid: what was written into its Secret and is not acknowledged yet
        self._lock = threading.Lock()

    def reconcile(self, key: Key) -> Result:
        """Bring one DatabaseAccessRequest in order."""
        self._end_vanished(key)
        obj = self._objects.get(ACCESS_REQUEST, key)
        if obj is None:
            return DONE
        if is_deleting(obj):
            return self._end(obj)
        secret_attempt = self._objects.add_finalizer(ACCESS_REQUEST, obj)
        failpoints.point("finalizer.on")
        return self._ensure(secret_attempt)

    def vanished(self, obj: Body) -> None:
        """Note that an object is no longer there; its next reconcile ends its access, unless that was done while it was
        being deleted.
        """
        with self._lock:
            self._readers.forget_request(obj)
            self._fresh.pop(uid_of(obj), None)
            if uid_of(obj) in self._released:
                self._released.discard(uid_of(obj))
                return
            self._gone.setdefault(key_of(obj), {})[uid_of(obj)] = self._cluster.ref(obj)

    def heard(self, ref: types_pb2.ObjectRef) -> Key:
        """Note that access knows a request; if there is no such object, its next reconcile ends its access."""
        key = Key(ref.namespace, ref.name)
        known = self._objects.get(ACCESS_REQUEST, key)
        if ref.uid and (known is None or uid_of(known) != ref.uid):
            with self._lock:
                self._gone.setdefault(key, {})[ref.uid] = ref
        return key

    def compare(self) -> list[Key]:
        """Go through all requests that access knows; answers those whose object is not known here, to be reconciled.

        Raises:
            LeasegateError: access failed.
        """
        found, page = list[Key](), requester_service_pb2.ListAccessRequestsResponse(next_page_token="")
        while True:
            asked = requester_service_pb2.ListAccessRequestsRequest(page_size=PAGE, page_token=page.next_page_token)
            page = self._peers.holder.ListAccessRequests(asked)
            found += [self.heard(each.object) for each in page.access_requests if self._is_missing(each)]
            if not page.next_page_token:
                return found

    def _is_missing(self, request: access_request_pb2.AccessRequest) -> bool:
        ref = request.object
        if request.access in ENDED or not ref.namespace or not self._cluster.is_of(ref):
            return False
        known = self._objects.get(ACCESS_REQUEST, Key(ref.namespace, ref.name))
        return known is None or uid_of(known) != ref.uid

    def _ensure(self, obj: Body) -> Result:
        now: RequestStatus | None = None
        try:
            if (fresh := self._fresh.pop(uid_of(obj), None)) and self._settle(obj, fresh):
                return DONE
            wish = ensure_access_request(obj, self._cluster, secret_attempt=self._publisher.secret_attempt(obj))
            wish.claim = bool(wish.decisions) and self._is_writable(obj)
            if wish.claim and not wish.secret_attempt:
                failpoints.point("claim.asked")
            answer = self._peers.access.EnsureAccessRequest(wish)
            now = request_status(answer.access_request)
            self._follow(obj, answer, now, secret_attempt=wish.secret_attempt)
        except PendingError as waiting:
            self._reporter.waiting(obj, waiting, now)
            return waiting.result
        except NotWrittenError as err:
            self._reporter.failed(obj, now, reason=NOT_WRITTEN[err.resource.kind], message=err.message)
            return Result(requeue=True)
        except LeasegateError as err:
            return self._failed(obj, err, now)
        self._patience.forget(uid_of(obj))
        if answer.next_step == watcher_service_pb2.NEXT_STEP_CLAIM:
            return Result(requeue_after_s=0)  # behind the keys that wait for their credential
        if answer.HasField("retry_after"):
            return Result(requeue_after_s=answer.retry_after.ToTimedelta().total_seconds())
        return DONE

    def _is_writable(self, obj: Body) -> bool:
        """Whether a credential, once claimed, can be kept; why not is said when there is one to be claimed."""
        try:
            self._publisher.check_writable(obj)
        except (PendingError, NotWrittenError):
            return False
        return True

    def _follow(
        self,
        obj: Body,
        answer: watcher_service_pb2.EnsureAccessRequestResponse,
        now: RequestStatus,
        *,
        secret_attempt: int,
    ) -> None:
        step = answer.next_step
        if step == watcher_service_pb2.NEXT_STEP_CLAIM:
            self._take(obj, answer, secret_attempt=secret_attempt)
        elif step == watcher_service_pb2.NEXT_STEP_ACKNOWLEDGE:
            self._keep(obj, self._acknowledge(obj, secret_attempt), secret_attempt=secret_attempt)
        elif step == watcher_service_pb2.NEXT_STEP_REMOVE:
            self._publisher.remove_objects(obj)
            self._readers.forget_request(obj)
            self._reporter.ended(obj, now)
        else:
            self._keep(obj, now, secret_attempt=secret_attempt)

    def _take(self, obj: Body, answer: watcher_service_pb2.EnsureAccessRequestResponse, *, secret_attempt: int) -> None:
        """Bring the credential into the Secret, which somebody waits for; ``_settle`` does the rest."""
        if answer.HasField("claim_error"):
            raise status.from_any(answer.claim_error)
        credential = (
            answer.credential if answer.HasField("credential") else self._claim(obj, secret_attempt=secret_attempt)
        )
        failpoints.point("claim.answered")
        self._publisher.write_secret(obj, credential)
        failpoints.point("secret.written")
        self._fresh[uid_of(obj)] = _Fresh(attempt=credential.attempt, before=secret_attempt)

    def _claim(self, obj: Body, *, secret_attempt: int) -> lease_pb2.Credential:
        """Claim by a call of its own what EnsureAccessRequest was not asked to claim, or knows not how to: an older access
        leaves it to us.
        """
        self._publisher.check_writable(obj)
        request = requester_service_pb2.ClaimCredentialRequest(
            access_request_id=uid_of(obj), known_attempt=secret_attempt
        )
        return self._peers.holder.ClaimCredential(request).credential

    def _settle(self, obj: Body, fresh: _Fresh) -> bool:
        """Acknowledge what is in the Secret and say so in the status, and beside that write Role and RoleBinding.

        Returns:
            Whether access took it; else it has to be asked anew what to do.
        """
        reading = self._readers.start_correction(obj, first=not fresh.before)
        try:
            now = self._acknowledge(obj, fresh.attempt)
            self._reporter.issued(obj, now, attempt=fresh.attempt, before=fresh.before)
            failpoints.point("status.written")
        except LeasegateError:
            return False  # EnsureAccessRequest says or meets the same
        finally:
            if reading is not None:
                wait([reading])  # lest it makes again what the next reconcile removes
        _finish(reading)
        self._patience.forget(uid_of(obj))
        return True

    def _acknowledge(self, obj: Body, attempt: int) -> RequestStatus:
        request = requester_service_pb2.AcknowledgeCredentialRequest(access_request_id=uid_of(obj), attempt=attempt)
        answer = self._peers.holder.AcknowledgeCredential(request)
        failpoints.point("acknowledged")
        return request_status(answer.access_request)

    def _keep(self, obj: Body, now: RequestStatus, *, secret_attempt: int) -> None:
        """The Secret is as it should be: so are Role and RoleBinding, which anybody may have edited, when they were
        found otherwise.
        """
        self._publisher.check_enabled(obj)
        self._reporter.stands(obj, now, secret_attempt=secret_attempt)
        if secret_attempt and now.lease:
            _finish(self._readers.start_correction(obj, first=False))

    def _failed(self, obj: Body, err: LeasegateError, now: RequestStatus | None) -> Result:
        if now is not None and isinstance(err, OVERTAKEN):
            return Result(requeue=True)
        if not self._patience.hides(uid_of(obj), err):
            self._reporter.failed(
                obj, now, reason="FailedToGetCredential" if now else reason_of(err), message=err.message
            )
        return result_of(err)

    def _end(self, obj: Body) -> Result:
        if not has_finalizer(obj, FINALIZER):
            return DONE
        uid = uid_of(obj)
        removed = (
            self._publisher.start_removal(obj) if uid not in self._cleared else None
        )  # nobody waits for the other's end
        try:
            answer = self._peers.access.DeleteAccessRequest(
                watcher_service_pb2.DeleteAccessRequestRequest(object=self._cluster.ref(obj))
            )
        except LeasegateError as err:
            if not self._patience.hides(uid, err):
                self._reporter.failed(
                    obj,
                    None,
                    reason=reason_of(err),
                    message=f"{err.message} The object goes as soon as its end is noted.",
                )
            return Result(requeue=True, requeue_after_s=err.retry_after_s)
        finally:
            if removed:
                removed.result()
                self._cleared.add(uid)
        failpoints.point("end.answered")
        failpoints.point("removed")
        waited_s = self._patience.lasted_s(uid, "end")
        if answer.open_attempts and waited_s < LET_GO_AFTER_S:
            return Result(
                requeue_after_s=min(max(0.25, waited_s), LET_GO_AFTER_S - waited_s)
            )  # its feed says sooner when all of it is gone
        if answer.open_attempts:
            why = "; ".join(condition.message for condition in answer.conditions)
            self._reporter.revoke_pending(obj, open_attempts=answer.open_attempts, why=why)
        self._released.add(uid)
        self._objects.remove_finalizer(ACCESS_REQUEST, obj)
        failpoints.point("finalizer.off")
        self._cleared.discard(uid)
        self._patience.forget(uid)
        return DONE

    def _end_vanished(self, key: Key) -> None:
        """End the access of objects that are no more.

        Whether they are is asked of the API server itself: nothing that lives may be ended.
        """
        with self._lock:
            refs = list(self._gone.get(key, {}).values())
        if not refs:
            return
        newest = self._objects.read_object(ACCESS_REQUEST, key)
        for ref in refs:
            if newest is None or uid_of(newest) != ref.uid:
                self._peers.access.DeleteAccessRequest(watcher_service_pb2.DeleteAccessRequestRequest(object=ref))
            with self._lock:
                self._gone.get(key, {}).pop(ref.uid, None)
        with self._lock:
            if not self._gone.get(key, True):
                del self._gone[key]


def _finish(reading: Future[None] | None) -> None:
    """Wait for Role and RoleBinding."""
    if reading is not None:
        reading.result()
