"""What Vault's refusals mean, as it really words them (OpenBao 2.7)."""

from __future__ import annotations

import pytest

from services.access.leases import drop_refused, is_gone
from services.common.errors import LeasegateError, VaultFailed, VaultRefused

OWNS = 'failed to revoke entry: err: ERROR: role "token-x" cannot be dropped because some objects depend on it (SQLSTATE 2BP01)'
DOWN = "failed to revoke entry: err: failed to connect to `user=postgres database=postgres`: connection refused"


@pytest.mark.parametrize(
    ("err", "refused"),
    [
        (VaultRefused(OWNS), True),
        (VaultRefused(DOWN), False),
        (VaultRefused("ERROR: the database system is starting up (SQLSTATE 57P03)"), False),
        (VaultRefused("ERROR: sorry, too many clients already (SQLSTATE 53300)"), False),
        (VaultRefused('ERROR: role "token-x" does not exist (SQLSTATE 42704)'), True),
        (VaultFailed(OWNS), False),
    ],
)
def test_a_drop_that_postgresql_refused_is_told_from_one_that_did_not_reach_it(err: LeasegateError, refused: bool) -> None:
    assert drop_refused(err) is refused


def test_a_lease_that_vault_does_not_have() -> None:
    assert is_gone(VaultRefused("Vault answered 400 for sys/leases/renew/…: lease not found"))
    assert not is_gone(VaultRefused(DOWN))
