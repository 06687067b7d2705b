"""Whether a Vault answers and is unsealed."""

from __future__ import annotations

from services.common.errors import LeasegateError
from services.common.vault.response import VaultNotFoundError
from services.common.vault.transport import Transport

_TIMEOUT_S = 2.0


def reachable(transport: Transport) -> bool:
    """Ask ``sys/health``, which needs no token; a standby node counts, a sealed one does not."""
    try:
        transport.send("GET", "sys/health?standbyok=true&perfstandbyok=true", timeout_s=_TIMEOUT_S)
    except (LeasegateError, VaultNotFoundError):
        return False
    return True
