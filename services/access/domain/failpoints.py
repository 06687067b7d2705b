"""The failpoints of the access service, between the ledger's commits and the calls to Vault."""

from __future__ import annotations

VARIABLE = "LEASEGATE_ACCESS_CRASH_AT"
"""``name`` or ``name:n``: the process ends the n-th time that it passes that point (1 if n is absent)."""

POINTS = (
    "ensure.committed",  # an access request, its decisions or its end are committed
    "revoke.committed",
    "pre.begun",  # an attempt is begun while its access request is pending
    "pre.token",  # Vault made its token
    "pre.accessor",  # the accessor is committed
    "claim.begun",
    "claim.token",
    "claim.issuing",  # the accessor and ISSUING are committed
    "claim.read",  # Vault answered the credential
    "claim.lease",  # its lease is committed
    "claim.refused",  # the lease was not: the attempt is not current
    "claim.revoked",  # by the claim itself, by lease id
    "ack.committed",
    "revoke_token.revoked",  # the accessor of an attempt without a lease
    "revoke.revoked",  # by lease id
    "revoke.closed",
    "recover.begun",
    "recover.accessor",  # the attempt's accessor is revoked
    "recover.token",  # the cleanup role has a token
    "recover.recovery",  # the recovery is committed
    "recover.outdated",  # all earlier accessors are revoked
    "recover.read",  # the cleanup role has its lease
    "recover.lease",  # which is committed
    "recover.dropped",  # and revoked
    "recover.first",  # the first of two recoveries is done
    "recover.closed",
    "renew.asked",  # Vault renewed a lease
    "renew.committed",
    "rotate.due",
    "reassess.step",  # some access requests of a changed db_role are reassessed, others are left
)

LEDGER_POINTS = (
    "ledger.begin",  # a transaction that writes is about to begin
    "ledger.commit",  # all of it is written, nothing is committed
    "ledger.committed",  # no listener has run yet
)
"""Points of every write of the ledger, the ones at its opening included."""

ALL_POINTS = (*POINTS, *LEDGER_POINTS)
