"""``leasegate``: the operators' program, for the access service's leases and its ledger.

Speaks to the access service by gRPC with the operator's certificate, and to PostgreSQL where it is given an URL; decides nothing itself.
Nothing else imports it.
"""

from cli.leasegate.commands import main

__all__ = ["main"]
