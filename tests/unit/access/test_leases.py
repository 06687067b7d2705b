"""What Vault's refusals mean, as it really words them (OpenBao 2.7)."""

from __future__ import annotations

import pytest

from services.access.vault.leases import drop_refused, is_gone
from services.common.errors import LeasegateError, VaultFailedError, VaultRefusedError

OWNS = (
    'failed to revoke entry: err: ERROR: role "token-x" cannot be dropped because some objects depend on it'
    " (SQLSTATE 2BP01)"
)
DOWN = "failed to revoke entry: err: failed to connect to `user=postgres database=postgres`: connection refused"


@pytest.mark.parametrize(
    ("err", "refused"),
    [
        (VaultRefusedError(OWNS), True),
        (VaultRefusedError(DOWN), False),
        (VaultRefusedError("ERROR: the database system is starting up (SQLSTATE 57P03)"), False),
        (VaultRefusedError("ERROR: sorry, too many clients already (SQLSTATE 53300)"), False),
        (VaultRefusedError('ERROR: role "token-x" does not exist (SQLSTATE 42704)'), True),
        (VaultFailedError(OWNS), False),
    ],
)
def test_a_refused_drop_differs_from_an_unreached_database(err: LeasegateError, refused: bool) -> None:
    assert drop_refused(err) is refused


def test_a_lease_that_vault_does_not_have() -> None:
    assert is_gone(VaultRefusedError("Vault answered 400 for sys/leases/renew/…: lease not found"))
    assert not is_gone(VaultRefusedError(DOWN))
