"""The access service's failpoints, between the ledger's commits and the calls to Vault."""

from __future__ import annotations

VARIABLE = "LEASEGATE_ACCESS_CRASH_AT"
"""``name`` or ``name:n``: the process ends the n-th time it passes that point (1 if n is absent)."""

POINTS = (
    "ensure.committed",  # a request, its decisions or its end are in the ledger
    "end.committed",
    "pre.begun",  # an attempt is begun while its request is pending
    "pre.token",  # Vault made its token
    "pre.accessor",  # whose accessor is committed
    "claim.begun",
    "claim.token",
    "claim.reading",  # the accessor is committed and so is `reading`
    "claim.read",  # Vault answered the credential
    "claim.lease",  # its lease is committed
    "claim.refused",  # the lease was not: the attempt is not current
    "claim.revoked",  # by the reader itself, by lease id
    "ack.committed",
    "endt.revoked",  # the accessor of an attempt that never read
    "end.revoked",  # by lease id
    "end.closed",
    "undo.begun",
    "undo.accessor",  # the attempt's accessor is revoked
    "undo.token",  # the cleanup role has a token
    "undo.recovery",  # the recovery is committed
    "undo.outdated",  # all earlier accessors are revoked
    "undo.read",  # the cleanup role has its lease
    "undo.lease",  # which is committed
    "undo.dropped",  # and revoked
    "undo.first",  # the first of two recoveries is done
    "undo.closed",
    "renew.asked",  # Vault prolonged a lease
    "renew.committed",
    "rotate.due",
)

LEDGER_POINTS = (
    "ledger.begin",  # a transaction that writes is about to begin
    "ledger.commit",  # all of it is written, nothing is committed
    "ledger.committed",  # nobody has heard of it yet
)
"""Points of every write of the ledger, the ones at its opening included."""

ALL_POINTS = (*POINTS, *LEDGER_POINTS)
