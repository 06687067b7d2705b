"""Merges a controller's conditions and fields into a status that others write, too. Pure.

Conditions of other writers keep their place and every byte. The controller's own change ``lastUpdateTime`` only when
reason, message or status changes, and ``lastTransitionTime`` only when the status flips.
"""

from __future__ import annotations

import datetime
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from services.common import logs
from watcher.kube.resources import Body

MESSAGE_CHARS = 1000


@dataclass(frozen=True, slots=True)
class Condition:
    """One condition that a controller sets.

    Attributes:
        type: CamelCase type.
        status: Whether it is true.
        reason: CamelCase word for programs.
        message: A sentence for people.
        warning: Whether an Event about it is a warning; None for no Event.
    """

    type: str
    status: bool
    reason: str
    message: str
    warning: bool | None = None


def timestamp(now: datetime.datetime) -> str:
    """A time as Kubernetes writes it, whole seconds."""
    return now.astimezone(datetime.UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def merged(
    status: Body,
    *,
    fields: Mapping[str, Any],
    conditions: Sequence[Condition],
    foreign: Collection[str] = (),
    complete: bool,
    now: datetime.datetime,
    generation: int,
) -> Body:
    """The status with fields and conditions set.

    Args:
        status: The present status.
        fields: Members to set; None removes one.
        conditions: Conditions to set.
        foreign: Types of conditions that other writers own, which are never touched.
        complete: Whether ``conditions`` are all of the controller's, so that its others are removed. The controller's
            are those with an observedGeneration whose type is not foreign.
        now: The time.
        generation: Number of the spec that the conditions are about.
    """
    found = {name: value for name, value in status.items() if name not in fields and name != "conditions"}
    found |= {name: value for name, value in fields.items() if value is not None}
    wanted = {condition.type: condition for condition in conditions if condition.type not in foreign}
    stamp, kept = timestamp(now), list[Body]()
    for present in status.get("conditions") or []:
        kind = present.get("type", "")
        if kind in wanted:
            kept.append(_condition(wanted.pop(kind), present, now=stamp, generation=generation))
        elif kind in foreign or not complete or "observedGeneration" not in present:
            kept.append(present)
    kept += [_condition(condition, {}, now=stamp, generation=generation) for condition in wanted.values()]
    return found | ({"conditions": kept} if kept else {})


def without_condition(status: Body, kind: str) -> Body:
    """The status without the controller's condition of a type."""
    kept = [
        present
        for present in status.get("conditions") or []
        if present.get("type") != kind or "observedGeneration" not in present
    ]
    return {name: value for name, value in status.items() if name != "conditions"} | (
        {"conditions": kept} if kept else {}
    )


def changed_conditions(status: Body, conditions: Sequence[Condition]) -> list[Condition]:
    """Those conditions that the status does not have yet with the same status, reason and message."""
    present = {
        each.get("type"): (each.get("status"), each.get("reason"), each.get("message"))
        for each in status.get("conditions") or []
    }
    return [
        each for each in conditions if present.get(each.type) != (str(each.status), each.reason, text(each.message))
    ]


def text(message: str) -> str:
    """A message for a status or Event: of bounded length, without anything that looks like a secret."""
    return logs.bounded(logs.scrub(message), MESSAGE_CHARS)


def _condition(condition: Condition, old: Body, *, now: str, generation: int) -> Body:
    new = {
        "type": condition.type,
        "status": str(condition.status),
        "reason": condition.reason,
        "message": text(condition.message),
    }
    same = all(old.get(name) == value for name, value in new.items())
    flipped = old.get("status") != new["status"]
    return {
        **new,
        "lastUpdateTime": old["lastUpdateTime"] if same and old.get("lastUpdateTime") else now,
        "lastTransitionTime": now if flipped or not old.get("lastTransitionTime") else old["lastTransitionTime"],
        "observedGeneration": generation,
    }
