"""The status of an object, as the watcher reads it. Pure."""

from __future__ import annotations

from watcher.kube.resources import Body

DECISIONS = ("Approved", "Denied")
"""Types of the conditions that approvers write; nothing else ever changes them."""


def status_of(obj: Body) -> Body:
    """The status; empty where there is none."""
    status = obj.get("status")
    return status if isinstance(status, dict) else {}


def conditions_of(obj: Body) -> list[Body]:
    """The conditions, as they stand."""
    found = status_of(obj).get("conditions")
    return [condition for condition in found if isinstance(condition, dict)] if isinstance(found, list) else []


def decision_conditions(obj: Body) -> list[Body]:
    """The approvers' conditions that hold, in the order of the status."""
    return [condition for condition in conditions_of(obj) if is_decision(condition)]


def is_decision(condition: Body) -> bool:
    """Whether a condition is an approver's and holds; one without a status does, as KubeVault wrote it in 2019."""
    return condition.get("type") in DECISIONS and condition.get("status", "True") == "True"
