"""Sends each DatabaseAccessRequest with its decisions to access, and does the next step that access answers.

The path from a decision to the Secret is short: the object from the watch, one EnsureAccessRequest that claims, the
Secret. Role, RoleBinding, acknowledgement and status follow, behind the Secrets of others. Nothing is read from
Kubernetes on the way.
"""

from __future__ import annotations

from concurrent.futures import Future, wait

from leasegate.access.v1 import access_request_pb2, requester_service_pb2, watcher_service_pb2
from leasegate.types.v1 import types_pb2
from services.common import failpoints
from services.common.errors import (
    AccessEndedError,
    ApprovalDeniedError,
    ApprovalRequiredError,
    LeasegateError,
    QuotaExceededError,
)
from services.common.rpc import status as rpc_status
from watcher.clients.stubs import ServiceStubs
from watcher.delivery.publisher import NotWrittenError, SecretPublisher
from watcher.delivery.rbac_audit import RbacAudit
from watcher.kube.objects import Objects
from watcher.kube.resources import Body, Key, has_finalizer, is_deleting, key_of, uid_of
from watcher.kube.result import DONE, PendingError, Result, result_of
from watcher.reconcilers.access_request_status import AccessRequestReporter
from watcher.reconcilers.failure_window import FailureWindow
from watcher.reconcilers.progress import ProgressTable, WrittenCredential
from watcher.reconcilers.status import reason_of
from watcher.specs.access_request import ensure_access_request
from watcher.specs.cluster import Cluster
from watcher.specs.kinds import ACCESS_REQUEST, FINALIZER

FINALIZER_KEPT_S = 3.0
"""How long a deletion waits for the database users to be dropped: with what a busy machine takes, at most 5 s."""
NOT_WRITTEN = {
    "Secret": "FailedToCreateSecret",
    "Role": "FailedToCreateRole",
    "RoleBinding": "FailedToCreateRoleBinding",
}
"""KubeVault's reasons, by the kind that could not be written."""
PAGE = 500
CLOSED = (access_request_pb2.ACCESS_STATE_CLOSED, access_request_pb2.ACCESS_STATE_REVOKING)
CHANGED_MEANWHILE = (ApprovalRequiredError, ApprovalDeniedError, AccessEndedError)
"""Errors of a claim for a request that changed after EnsureAccessRequest answered: access is asked again."""


class AccessRequestReconciler:
    """Reconciles DatabaseAccessRequests.

    Args:
        objects: The objects.
        publisher: Writes Secret, Role and RoleBinding.
        rbac_audit: Knows which Roles and RoleBindings have to be restored.
        services: The services.
        reporter: Reports the state of each.
        failures: Since when each fails.
        cluster: Where they are.
    """

    def __init__(
        self,
        *,
        objects: Objects,
        publisher: SecretPublisher,
        rbac_audit: RbacAudit,
        services: ServiceStubs,
        reporter: AccessRequestReporter,
        failures: FailureWindow,
        cluster: Cluster,
    ) -> None:
        self._objects, self._publisher, self._services, self._reporter = objects, publisher, services, reporter
        self._rbac_audit, self._failures, self._cluster = rbac_audit, failures, cluster
        self._progress = ProgressTable()

    def reconcile(self, key: Key) -> Result:
        """Reconcile one DatabaseAccessRequest, and close the access of deleted ones of that name."""
        self._close_missing(key)
        obj = self._objects.get(ACCESS_REQUEST, key)
        if obj is None:
            return DONE
        if is_deleting(obj):
            return self._finalize(obj)
        try:
            obj = self._objects.add_finalizer(ACCESS_REQUEST, obj)
        except PendingError as pending:
            self._reporter.report_pending(obj, pending, None, secret_attempt=None)
            return pending.result
        failpoints.point("finalizer.on")
        return self._ensure(obj)

    def note_deleted(self, obj: Body) -> None:
        """Note that an object is deleted; the next reconcile closes its access, unless access recorded the deletion."""
        self._rbac_audit.forget_request(obj)
        self._progress.note_deleted(key_of(obj), self._cluster.ref(obj))

    def note_open_access(self, ref: types_pb2.ObjectRef) -> Key:
        """Note that access has a request open; if its object does not exist, the next reconcile closes its access.

        Returns:
            The key to reconcile.
        """
        key = Key(ref.namespace, ref.name)
        if ref.uid and not self._exists(ref):
            self._progress.update(key, ref.uid, missing=ref)
        return key

    def list_missing(self) -> list[Key]:
        """Compare all requests that access has open with the objects; returns the keys of those without one.

        Raises:
            LeasegateError: access failed.
        """
        found, page = list[Key](), requester_service_pb2.ListAccessRequestsResponse(next_page_token="")
        while True:
            request = requester_service_pb2.ListAccessRequestsRequest(page_size=PAGE, page_token=page.next_page_token)
            page = self._services.requester.ListAccessRequests(request)
            found += [self.note_open_access(each.object) for each in page.access_requests if self._is_missing(each)]
            if not page.next_page_token:
                return found

    def _is_missing(self, request: access_request_pb2.AccessRequest) -> bool:
        ref = request.object
        if request.access_state in CLOSED or not ref.namespace or not self._cluster.is_of(ref):
            return False
        return not self._exists(ref)

    def _exists(self, ref: types_pb2.ObjectRef) -> bool:
        known = self._objects.get(ACCESS_REQUEST, Key(ref.namespace, ref.name))
        return known is not None and uid_of(known) == ref.uid

    # -- ensure: from the object to the credential

    def _ensure(self, obj: Body) -> Result:
        answer: access_request_pb2.AccessRequest | None = None
        secret_attempt: int | None = None
        try:
            if acknowledged := self._acknowledge_written(obj):
                written, answer, correcting = acknowledged
                secret_attempt = written.attempt
                _finish(correcting)  # first: Ready means that the subjects can read the Secret
                self._reporter.report_issued(obj, answer, attempt=written.attempt, previous=written.previous)
                failpoints.point("status.written")
                self._failures.reset_failures(uid_of(obj))
                return DONE
            secret_attempt = self._publisher.secret_attempt(obj)
            ensured = self._ensure_access(obj, secret_attempt=secret_attempt)
            answer = ensured.access_request
            self._do_next_step(obj, ensured, secret_attempt=secret_attempt)
        except PendingError as pending:
            self._reporter.report_pending(obj, pending, answer, secret_attempt=secret_attempt)
            return pending.result
        except NotWrittenError as err:
            reason = NOT_WRITTEN[err.resource.kind]
            self._reporter.report_failed(obj, answer, reason=reason, message=err.message, secret_attempt=secret_attempt)
            return Result(requeue=True)
        except LeasegateError as err:
            if answer is not None and isinstance(err, CHANGED_MEANWHILE):
                return Result(requeue=True)
            if not self._failures.is_unreported(uid_of(obj), err):
                own = answer is None or isinstance(err, QuotaExceededError)
                reason = reason_of(err) if own else "FailedToGetCredential"
                self._reporter.report_failed(
                    obj, answer, reason=reason, message=err.message, secret_attempt=secret_attempt
                )
            return result_of(err)
        self._failures.reset_failures(uid_of(obj))
        if ensured.next_step == watcher_service_pb2.NEXT_STEP_CLAIM:
            return Result(follow_up=True)  # the rest is done behind the keys that wait for their credential
        if ensured.HasField("retry_after"):
            return Result(requeue_after_s=ensured.retry_after.ToTimedelta().total_seconds())
        return DONE

    def _ensure_access(self, obj: Body, *, secret_attempt: int) -> watcher_service_pb2.EnsureAccessRequestResponse:
        """Send the request with its decisions, and claim in the same call if a credential could be kept."""
        request = ensure_access_request(obj, self._cluster, secret_attempt=secret_attempt)
        request.claim = self._is_writable(obj)
        if request.claim and request.decisions and not secret_attempt:
            failpoints.point("claim.asked")
        return self._services.access.EnsureAccessRequest(request)

    def _is_writable(self, obj: Body) -> bool:
        """Whether a claimed credential can be kept; ``_publish_claimed`` reports why not once there is one to claim."""
        try:
            self._publisher.check_writable(obj)
        except (PendingError, NotWrittenError):
            return False
        return True

    def _do_next_step(
        self, obj: Body, ensured: watcher_service_pb2.EnsureAccessRequestResponse, *, secret_attempt: int
    ) -> None:
        step, answer = ensured.next_step, ensured.access_request
        if step == watcher_service_pb2.NEXT_STEP_CLAIM:
            self._publish_claimed(obj, ensured, secret_attempt=secret_attempt)
        elif step == watcher_service_pb2.NEXT_STEP_ACKNOWLEDGE:
            self._confirm(obj, self._acknowledge(obj, secret_attempt), secret_attempt=secret_attempt)
        elif step == watcher_service_pb2.NEXT_STEP_REMOVE:
            self._publisher.remove_objects(obj)
            self._rbac_audit.forget_request(obj)
            self._reporter.report_removed(obj, answer)
        else:
            self._confirm(obj, answer, secret_attempt=secret_attempt)

    def _publish_claimed(
        self, obj: Body, ensured: watcher_service_pb2.EnsureAccessRequestResponse, *, secret_attempt: int
    ) -> None:
        """Write the claimed credential into the Secret; the next reconcile acknowledges it."""
        if ensured.HasField("claim_error"):
            raise rpc_status.from_any(ensured.claim_error)
        if not ensured.HasField("credential"):
            self._publisher.check_writable(obj)  # raises why no credential was claimed
            raise PendingError("The Secret can be written now", reason="Starting", requeue_after_s=0)
        credential = ensured.credential
        failpoints.point("claim.answered")
        self._publisher.write_secret(obj, credential)
        failpoints.point("secret.written")
        written = WrittenCredential(attempt=credential.attempt, previous=secret_attempt)
        self._progress.update(key_of(obj), uid_of(obj), written=written)

    def _acknowledge_written(
        self, obj: Body
    ) -> tuple[WrittenCredential, access_request_pb2.AccessRequest, Future[None] | None] | None:
        """Acknowledge a credential that was just written, and write Role and RoleBinding meanwhile.

        Returns:
            The credential, the access request as access answered it, and the writing of Role and RoleBinding, which is
            over; None if there was no such credential or access refused, so that it is asked for the next step.
        """
        written = self._progress.update(key_of(obj), uid_of(obj), written=None).written
        if written is None:
            return None
        correcting = self._rbac_audit.start_correction(obj, first=not written.previous)
        try:
            return written, self._acknowledge(obj, written.attempt), correcting
        except LeasegateError:
            return None  # EnsureAccessRequest answers, or meets, the same
        finally:
            if correcting is not None:
                wait([correcting])  # so that it does not create again what the next reconcile removes

    def _acknowledge(self, obj: Body, attempt: int) -> access_request_pb2.AccessRequest:
        request = requester_service_pb2.AcknowledgeCredentialRequest(access_request_id=uid_of(obj), attempt=attempt)
        answer = self._services.requester.AcknowledgeCredential(request)
        failpoints.point("acknowledged")
        return answer.access_request

    def _confirm(self, obj: Body, answer: access_request_pb2.AccessRequest, *, secret_attempt: int) -> None:
        """Report the state, and correct Role and RoleBinding if the audit found a change."""
        self._publisher.check_enabled(obj)
        if secret_attempt and answer.HasField("lease"):
            _finish(self._rbac_audit.start_correction(obj, first=False))
        self._reporter.report_state(obj, answer, secret_attempt=secret_attempt)

    # -- finalize: from the deletion to the end of access

    def _finalize(self, obj: Body) -> Result:
        """Remove Secret, Role and RoleBinding, have access record the deletion, then remove the finalizer."""
        if not has_finalizer(obj, FINALIZER):
            return DONE
        key, uid = key_of(obj), uid_of(obj)
        removing = None  # beside the call to access
        if not self._progress.find_progress(key, uid).objects_removed:
            removing = self._publisher.start_removal(obj)
        try:
            answer = self._delete_access(self._cluster.ref(obj))
        except LeasegateError as err:
            if not self._failures.is_unreported(uid, err):
                text = f"{err.message} The object is deleted as soon as access has recorded that."
                self._reporter.report_failed(obj, None, reason=reason_of(err), message=text, secret_attempt=0)
            return Result(requeue=True, requeue_after_s=err.retry_after_s)
        finally:
            if removing:
                removing.result()
                self._progress.update(key, uid, objects_removed=True)
        failpoints.point("end.answered")
        failpoints.point("removed")
        elapsed_s = self._failures.elapsed_s(uid, "deletion")
        if answer.open_attempts and elapsed_s < FINALIZER_KEPT_S:
            # The change feed brings the key back sooner if all database users are dropped.
            return Result(requeue_after_s=min(max(0.25, elapsed_s), FINALIZER_KEPT_S - elapsed_s))
        if answer.open_attempts:
            why = "; ".join(condition.message for condition in answer.conditions)
            self._reporter.report_revocation_pending(obj, open_attempts=answer.open_attempts, why=why)
        self._progress.update(key, uid, deletion_recorded=True)
        self._objects.remove_finalizer(ACCESS_REQUEST, obj)
        failpoints.point("finalizer.off")
        self._failures.reset_failures(uid)
        return DONE

    def _delete_access(self, ref: types_pb2.ObjectRef) -> watcher_service_pb2.DeleteAccessRequestResponse:
        request = watcher_service_pb2.DeleteAccessRequestRequest(object=ref)
        return self._services.access.DeleteAccessRequest(request)

    def _close_missing(self, key: Key) -> None:
        """Close the access of objects that are deleted; the API server itself is asked whether they are."""
        refs = self._progress.list_missing(key)
        if not refs:
            return
        newest = self._objects.read_object(ACCESS_REQUEST, key)
        for ref in refs:
            if newest is not None and uid_of(newest) == ref.uid:
                self._progress.update(key, ref.uid, missing=None)
            else:
                self._delete_access(ref)
                self._progress.forget_request(key, ref.uid)


def _finish(correcting: Future[None] | None) -> None:
    """Wait for Role and RoleBinding, and raise what failed."""
    if correcting is not None:
        correcting.result()
