"""The status of an object, merged with what others wrote there. Pure.

Conditions of types that are not ours, an approver's Approved and Denied above all, keep their place and every byte. Ours change
``lastUpdateTime`` only when they say something new, and ``lastTransitionTime`` only when their status flips.
"""

from __future__ import annotations

import datetime
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from services.common import logs
from watcher.kube.resources import Body
from watcher.specs.status import DECISIONS

MESSAGE_CHARS = 1000


@dataclass(frozen=True, slots=True)
class Condition:
    """One condition that is to be there.

    Attributes:
        type: CamelCase type.
        status: Whether it holds.
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
    facts: Sequence[Condition],
    complete: bool,
    now: datetime.datetime,
    generation: int,
) -> Body:
    """The status as it is to be.

    Args:
        status: As it is.
        fields: Members to set; None removes one.
        facts: Conditions to set.
        complete: Whether these are all of our conditions, so that others of ours go. Ours are those with an
            observedGeneration, but for decisions.
        now: The time.
        generation: Number of the spec that the facts speak of.
    """
    found = {name: value for name, value in status.items() if name not in fields}
    found |= {name: value for name, value in fields.items() if value is not None}
    conditions = _conditions(
        status.get("conditions") or [], facts, complete=complete, now=timestamp(now), generation=generation
    )
    found.pop("conditions", None)
    return found | ({"conditions": conditions} if conditions else {})


def news(status: Body, facts: Sequence[Condition]) -> list[Condition]:
    """Those facts that the status does not say yet in these words."""
    said = {c.get("type"): (c.get("status"), c.get("reason"), c.get("message")) for c in status.get("conditions") or []}
    return [fact for fact in facts if said.get(fact.type) != (str(fact.status), fact.reason, text(fact.message))]


def text(message: str) -> str:
    """A message as it may stand in a status or Event: of bounded length, without what looks like a secret."""
    return logs.bounded(logs.scrub(message), MESSAGE_CHARS)


def _conditions(
    conditions: Sequence[Body], facts: Sequence[Condition], *, complete: bool, now: str, generation: int
) -> list[Body]:
    wanted = {fact.type: fact for fact in facts if fact.type not in DECISIONS}
    found = []
    for condition in conditions:
        kind = condition.get("type", "")
        if kind in wanted:
            found.append(_condition(wanted.pop(kind), condition, now=now, generation=generation))
        elif kind in DECISIONS or not complete or "observedGeneration" not in condition:
            found.append(condition)
    return found + [_condition(fact, {}, now=now, generation=generation) for fact in wanted.values()]


def _condition(fact: Condition, old: Body, *, now: str, generation: int) -> Body:
    said = {"type": fact.type, "status": str(fact.status), "reason": fact.reason, "message": text(fact.message)}
    same = all(old.get(name) == value for name, value in said.items())
    flipped = old.get("status") != said["status"]
    return {
        **said,
        "lastUpdateTime": old["lastUpdateTime"] if same and old.get("lastUpdateTime") else now,
        "lastTransitionTime": now if flipped or not old.get("lastTransitionTime") else old["lastTransitionTime"],
        "observedGeneration": generation,
    }
