"""The watcher's failpoints, on the way of one access request."""

from __future__ import annotations

VARIABLE = "LEASEGATE_WATCHER_CRASH_AT"
"""``name`` or ``name:n``: the process ends the n-th time it passes that point (1 if n is absent)."""

POINTS = (
    "finalizer.on",
    "claim.asked",  # before the claim for a request that is decided and has no credential
    "claim.answered",  # the watcher has the password in memory
    "secret.written",
    "acknowledged",  # Role and RoleBinding are written in parallel
    "status.written",
    "end.answered",  # access has recorded the deletion
    "removed",  # Secret, Role and RoleBinding are removed
    "finalizer.off",
)
