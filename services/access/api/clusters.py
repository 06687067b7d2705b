"""Which cluster each caller of WatcherService is the watcher of, so that none speaks for another cluster."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import Message

from leasegate.types.v1 import types_pb2
from services.common.errors import CallerNotAllowedError, FieldViolation, SpecInvalidError
from services.common.logs import bounded
from services.common.rpc import caller


class WatcherClusters:
    """Checks the objects that a caller of WatcherService names.

    Args:
        uids: uid of its cluster (of the namespace kube-system) by name in a client's certificate.
    """

    def __init__(self, uids: Mapping[str, str]) -> None:
        self._uids = dict(uids)

    def admit(self, request: Message) -> str:
        """Check that each object that a request names is one of the caller's cluster, in a namespace.

        Returns:
            uid of the caller's cluster.

        Raises:
            CallerNotAllowedError: The caller is the watcher of no cluster, or of another one.
            SpecInvalidError: An object has no namespace: only the operator's catalog file has such roles.
        """
        who = caller.current()
        uid = self._uids.get(who)
        if not uid:
            raise CallerNotAllowedError(
                f"{who} is the watcher of no cluster: start the access service with --watcher-cluster {who}=UID",
                service="WatcherService",
            )
        for path, ref in _objects(request, ""):
            if ref.cluster_uid != uid:
                named = bounded(ref.cluster_uid, 64) or "no cluster"
                raise CallerNotAllowedError(
                    f"{path}.cluster_uid names {named}, and {who} is the watcher of {uid}: use the certificate of that"
                    " cluster's watcher, or correct --watcher-cluster of the access service",
                    service="WatcherService",
                )
            if not ref.namespace:
                raise SpecInvalidError.of(
                    FieldViolation(
                        f"{path}.namespace",
                        "is missing: it has to be an object of Kubernetes; roles for others are named in --catalog",
                    )
                )
        return uid


def _objects(message: Message, path: str) -> Iterator[tuple[str, types_pb2.ObjectRef]]:
    """The objects that a message and its parts name, with the path of each."""
    for field, value in message.ListFields():
        if field.type != FieldDescriptor.TYPE_MESSAGE:
            continue
        name = f"{path}.{field.name}" if path else field.name
        for part in [value] if isinstance(value, Message) else value:
            if isinstance(part, types_pb2.ObjectRef):
                yield name, part
            elif isinstance(part, Message):
                yield from _objects(part, name)
