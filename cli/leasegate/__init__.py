"""``leasegate``: the operators' command line for the leases and the ledger of the access service.

It calls the access service by gRPC with the operator's certificate, and PostgreSQL where an URL is given; it decides
nothing itself.
"""

from cli.leasegate.commands import main

__all__ = ["main"]
