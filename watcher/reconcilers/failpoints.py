"""The watcher's failpoints, on the way of one access request."""

from __future__ import annotations

VARIABLE = "LEASEGATE_WATCHER_CRASH_AT"
"""``name`` or ``name:n``: the process ends the n-th time it passes that point (1 if n is absent)."""

POINTS = (
    "finalizer.on",
    "claim.asked",  # a credential is about to be asked for, for a request that is decided and whose Secret holds none
    "claim.answered",  # the password is in hand
    "secret.written",
    "acknowledged",  # Role and RoleBinding are being written beside
    "status.written",
    "end.answered",  # access has noted the end
    "removed",  # Secret, Role and RoleBinding are gone
    "finalizer.off",
)
