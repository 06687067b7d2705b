"""Prints access requests: as a table like kubectl's, as JSON or as YAML. Pure.

What others wrote into an object is data: no terminal carries it out (``services.common.texts``).
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta

from cli.kubectl_vault.decisions import Json, find
from services.common.texts import escaped, escaped_json, is_harmless

STAMP = "leasegate.dev/requested-by"
_ON_BEHALF_OF, _VERIFIED_BY = "leasegate.dev/on-behalf-of", "leasegate.dev/verified-by"
_NONE = "<none>"


def as_table(requests: Sequence[Json], *, now: datetime, with_namespace: bool) -> str:
    """Show name, status, requester, approver, the lease's expiry and the age."""
    rows: list[tuple[str, ...]] = [("NAMESPACE", "NAME", "STATUS", "REQUESTER", "APPROVER", "LEASE EXPIRES", "AGE")]
    rows += [_row(request, now) for request in requests]
    if not with_namespace:
        rows = [row[1:] for row in rows]
    rows = [tuple(escaped(cell) for cell in row) for row in rows]
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    return "\n".join(
        "   ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows
    )


def _row(request: Json, now: datetime) -> tuple[str, ...]:
    metadata = request["metadata"]
    return (
        metadata.get("namespace", ""),
        metadata["name"],
        state(request),
        requester(request) or "<unverified>",
        _approver(request),
        _expiry(request, now),
        span(now - _time(metadata["creationTimestamp"])),
    )


def state(request: Json) -> str:
    """The phase, or the decision while the watcher has not written a phase. A denial is final, so it shows at once."""
    phase = (request.get("status") or {}).get("phase")
    if request["metadata"].get("deletionTimestamp"):
        return "Terminating"
    if phase != "Expired" and find(request, "Denied"):
        return "Denied"
    return str(phase or ("Approved" if find(request, "Approved") else "WaitingForApproval"))


def requester(request: Json) -> str:
    """The requester, as the admission policy stamped it; empty without a stamp."""
    return str((request["metadata"].get("annotations") or {}).get(STAMP) or "")


def behind(request: Json) -> tuple[str, str]:
    """For whom the requester asks, and who vouches for that, as its annotations say; both may be empty."""
    notes = request["metadata"].get("annotations") or {}
    return str(notes.get(_ON_BEHALF_OF) or ""), str(notes.get(_VERIFIED_BY) or "")


def _approver(request: Json) -> str:
    decision = find(request, "Denied") or find(request, "Approved")
    if decision is None:
        return _NONE
    name = str(decision.get("approver") or "<unverified>")
    return f"{name} (own request)" if name == requester(request) else name


def _expiry(request: Json, now: datetime) -> str:
    end = ((request.get("status") or {}).get("lease") or {}).get("expireTime")
    if not end:
        return _NONE
    left = _time(end) - now
    return f"{end} (in {span(left)})" if left.total_seconds() > 0 else f"{end} (expired)"


def _time(text: str) -> datetime:
    return datetime.fromisoformat(text).astimezone(UTC)


def span(delta: timedelta) -> str:
    """A duration as kubectl's AGE column shows it, in its two greatest units at most."""
    seconds = max(0, int(delta.total_seconds()))
    if seconds < 120:
        return f"{seconds}s"
    if seconds < 7200:
        minutes, rest = divmod(seconds, 60)
        return f"{minutes}m" if minutes >= 10 or not rest else f"{minutes}m{rest}s"
    hours, rest = divmod(seconds // 60, 60)
    if hours < 48:
        return f"{hours}h" if hours >= 8 or not rest else f"{hours}h{rest}m"
    return f"{hours // 24}d"


def as_text(requests: Sequence[Json], *, form: str, single: bool) -> str:
    """Print the objects as they are, but for managedFields; several as a List, as kubectl does.

    Args:
        requests: The objects.
        form: ``json`` or ``yaml``.
        single: Whether one name was asked for, so that the object stands by itself.
    """
    bare = [
        request | {"metadata": {k: v for k, v in request["metadata"].items() if k != "managedFields"}}
        for request in requests
    ]
    shown: Json = {"apiVersion": "v1", "kind": "List", "metadata": {"resourceVersion": ""}, "items": bare}
    if single and len(bare) == 1:
        shown = bare[0]
    if form == "json":
        return escaped_json(json.dumps(shown, indent=4, sort_keys=True, ensure_ascii=False))
    import yaml  # only this needs it

    text = str(yaml.safe_dump(shown, sort_keys=True, width=1_000_000, allow_unicode=True))
    if not is_harmless(text):
        text = str(yaml.safe_dump(shown, sort_keys=True, width=1_000_000, allow_unicode=False))
    return text.rstrip("\n")
