"""Prints leases, orphans and the ledger's state: tables for people, JSON for programs. Pure.

What the service says is data: no terminal carries it out (``services.common.texts``).
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from typing import Any

from google.protobuf.json_format import MessageToDict
from google.protobuf.message import Message
from google.protobuf.timestamp_pb2 import Timestamp

from leasegate.access.v1 import lease_pb2, ledger_pb2, orphan_pb2
from leasegate.access.v1 import operator_service_pb2 as pb
from services.common.texts import escaped, escaped_json

_NAMES = [value.name for value in lease_pb2.LeaseState.DESCRIPTOR.values]
STATES = tuple(name.removeprefix("LEASE_STATE_").lower() for name in _NAMES if not name.endswith("UNSPECIFIED"))
_KINDS = {
    orphan_pb2.ORPHAN_KIND_LEASE_UNKNOWN: "a lease in Vault that the ledger does not know",
    orphan_pb2.ORPHAN_KIND_LEASE_CLOSED: "a lease in Vault that is closed in the ledger",
    orphan_pb2.ORPHAN_KIND_LEASE_MISSING: "a lease in the ledger that Vault does not know",
    orphan_pb2.ORPHAN_KIND_DATABASE_USER_UNKNOWN: "a database user of an attempt that the ledger does not know",
    orphan_pb2.ORPHAN_KIND_DATABASE_USER_CLOSED: "a database user of an attempt that is closed in the ledger",
}


def state(lease: lease_pb2.Lease) -> str:
    """State of a lease in a word or two."""
    if lease.state == lease_pb2.LEASE_STATE_REVOKING and lease.HasField("lock_time"):
        return "locked out"
    return lease_pb2.LeaseState.Name(lease.state).removeprefix("LEASE_STATE_").lower()


def leases(found: Sequence[lease_pb2.Lease], *, now: datetime) -> str:
    """A table, in the order of ``found``; with the end reasons, if any lease has one."""
    rows: list[tuple[str, ...]] = [
        ("HANDLE", "STATE", "ROLE", "USER", "ISSUED", "EXPIRES", "RENEWED", "ACCESS REQUEST", "END REASON")
    ]
    for lease in found:
        times = (_at(lease, "issue_time"), _left(lease, now), _at(lease, "renew_time"))
        rows.append(
            (
                lease.handle,
                state(lease),
                lease.vault_role,
                lease.username,
                *times,
                lease.access_request_id,
                _end_reason(lease),
            )
        )
    return table(rows if any(_end_reason(lease) for lease in found) else [row[:-1] for row in rows])


def _end_reason(lease: lease_pb2.Lease) -> str:
    """Why a lease is revoked, and why its database user is not dropped yet."""
    if not lease.revocation_error:
        return lease.end_reason
    return f"{lease.end_reason}; not dropped yet, because {lease.revocation_error}".removeprefix("; ")


def table(rows: Sequence[Sequence[str]]) -> str:
    """Print rows in columns."""
    rows = [[escaped(cell) for cell in row] for row in rows]
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    return "\n".join(
        "   ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows
    )


def as_json(found: Iterable[Message] | Message) -> str:
    """JSON with the names of the .proto files; several as a list."""
    value: Any = _dict(found) if isinstance(found, Message) else [_dict(each) for each in found]
    return escaped_json(json.dumps(value, indent=2))


def _dict(message: Message) -> dict[str, Any]:
    return MessageToDict(message, preserving_proto_field_name=True)


def orphans(found: pb.FindOrphansResponse, *, database: bool) -> str:
    """The orphans, each with what to do about it, and what was compared."""
    lines: list[str] = []
    for orphan in found.orphans:
        lines.append(f"ORPHAN  {_KINDS.get(orphan.kind, 'something that this program is too old to name')}")
        named = {"lease": orphan.lease_id, "user": orphan.username, "access request": orphan.access_request_id}
        lines += [f"  {name:<16}{value}" for name, value in named.items() if value]
        lines.append(f"  {'to do':<16}{orphan.advice}")
    lines += [f"NOT COMPARED  {each.mount} at {each.address}: {each.reason}" for each in found.skipped_mounts]
    compared = f"{found.leases_compared} leases of Vault" + (
        f" and {found.database_users_compared} database users of PostgreSQL" if database else ""
    )
    lines.append(
        f"{len(found.orphans)} of {compared} are not explained."
        if found.orphans
        else f"Compared {compared}: all is explained."
    )
    return "\n".join(map(escaped, lines))


def ledger(found: ledger_pb2.Ledger) -> str:
    """The ledger's state."""
    lines = [f"ledger   {found.id}"]
    if found.issuance_paused:
        lines.append(f"PAUSED   all issuance: a watcher knows the ledger {found.known_id} instead")
    if found.paused_access_requests:
        lines.append(
            f"PAUSED   {found.paused_access_requests} access request(s), whose Secrets have attempts that the ledger "
            "does not know"
        )
    if found.HasField("accept_time"):
        lines.append(f"accepted a loss at {_time(found.accept_time)}")
    if not (found.issuance_paused or found.paused_access_requests):
        lines.append("issuance is not paused")
    return "\n".join(map(escaped, lines))


def _at(lease: lease_pb2.Lease, field: str) -> str:
    return _time(getattr(lease, field)) if lease.HasField(field) else "-"  # type: ignore[arg-type]


def _left(lease: lease_pb2.Lease, now: datetime) -> str:
    if not lease.HasField("expire_time"):
        return "-"
    left = (lease.expire_time.ToDatetime(tzinfo=UTC) - now).total_seconds()
    return f"{_time(lease.expire_time)} ({'in ' + _span(left) if left > 0 else 'expired'})"


def _span(seconds: float) -> str:
    for size, unit in ((86400, "d"), (3600, "h"), (60, "m")):
        if seconds >= 2 * size:
            return f"{int(seconds // size)}{unit}"
    return f"{int(seconds)}s"


def _time(at: Timestamp) -> str:
    return at.ToDatetime(tzinfo=UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
