"""What Vault's refusals mean, as it really words them (OpenBao 2.7)."""

from __future__ import annotations

import pytest

from services.access.vault.leases import drop_refused, is_gone
from services.common.errors import LeasegateError
from tests.fakes.vault_errors import answered

OWNS = (
    'failed to revoke entry: err: ERROR: role "token-x" cannot be dropped because some objects depend on it'
    " (SQLSTATE 2BP01)"
)
DOWN = "failed to revoke entry: err: failed to connect to `user=postgres database=postgres`: connection refused"


@pytest.mark.parametrize(
    ("err", "refused"),
    [
        (answered(400, OWNS), True),
        (answered(400, DOWN), False),
        (answered(400, "ERROR: the database system is starting up (SQLSTATE 57P03)"), False),
        (answered(400, "ERROR: sorry, too many clients already (SQLSTATE 53300)"), False),
        (answered(400, 'ERROR: role "token-x" does not exist (SQLSTATE 42704)'), True),
        (answered(400, f"ERROR: {'x' * 5000} (SQLSTATE 57P03) (SQLSTATE 2BP01)"), True),  # the last one is PostgreSQL's
        (answered(400, "ERROR: (SQLSTATE 2BP01) (SQLSTATE 57P03)"), False),
        (answered(400, "a database user that can log in (SQLSTATE LG001)"), True),
        (answered(500, OWNS), False),
    ],
)
def test_a_refused_drop_differs_from_an_unreached_database(err: LeasegateError, refused: bool) -> None:
    assert drop_refused(err) is refused


def test_a_lease_that_vault_does_not_have() -> None:
    assert is_gone(answered(400, "lease not found"))
    assert not is_gone(answered(400, DOWN))


@pytest.mark.parametrize("raised", ["lease not found", "x\nlease not found", "lease not found\n"])
def test_a_statement_cannot_say_that_a_lease_is_gone(raised: str) -> None:
    """Of a renewal statement of a team: else its database user would outlive what the ledger knows."""
    assert not is_gone(answered(400, f"failed to renew entry: err: ERROR: {raised} (SQLSTATE P0001)"))
