"""The watcher's failpoints: on the way of one access request, and of a change of what it is about."""

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
    "role.paused",  # access has paused a db_role; Vault has it as before
    "role.written",  # Vault has it as asked for; access has no snapshot of that
    "engine.paused",  # access has paused the db_roles of a connection; Vault has it as before
    "engine.written",  # Vault has it as asked for; access does not know so
)
