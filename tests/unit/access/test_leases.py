"""What Vault's refusals mean, as it really words them (OpenBao 2.7)."""

from __future__ import annotations

import pytest

from services.access.vault.leases import drop_failure, is_gone
from services.common.errors import LeasegateError
from services.common.vault.error_texts import Drop
from tests.fakes.vault_errors import answered

OWNS = (
    'failed to revoke entry: err: ERROR: role "token-x" cannot be dropped because some objects depend on it'
    " (SQLSTATE 2BP01)"
)
DOWN = "failed to revoke entry: err: failed to connect to `user=postgres database=postgres`: connection refused"


@pytest.mark.parametrize(
    ("err", "failure"),
    [
        (answered(400, OWNS), Drop.OWNS),
        (answered(400, DOWN), Drop.UNREACHED),
        (answered(400, "context canceled"), Drop.UNREACHED),
        (answered(400, 'failed to find entry for connection with name: "x"'), Drop.UNREACHED),
        (answered(500, OWNS), Drop.UNREACHED),
        (
            answered(400, f"ERROR: {'x' * 5000} (SQLSTATE 57P03) (SQLSTATE 2BP01)"),
            Drop.OWNS,
        ),  # the last is PostgreSQL's
        (answered(400, "ERROR: (SQLSTATE 2BP01) (SQLSTATE 57P03)"), Drop.PASSING),
        *((code, Drop.OWNS) for code in ("2BP01", "LG001")),
        *((code, Drop.PASSING) for code in ("08006", "28000", "28P01", "3D000", "53300", "57P01", "57P03", "58030")),
        *((code, Drop.PASSING) for code in ("0A000", "25006", "26000", "40001", "40P01", "42P05", "54000", "XX000")),
        *(
            (code, Drop.REFUSED)
            for code in ("42501", "42601", "42703", "42704", "42883", "42P01", "3F000", "22P02", "P0001", "55P03")
        ),
        *((code, Drop.REFUSED) for code in ("LG002", "LG003", "LG004", "0A00A")),
    ],
)
def test_what_a_failed_revocation_says_about_the_drop(err: LeasegateError | str, failure: Drop) -> None:
    if isinstance(err, str):
        err = answered(400, f"failed to revoke entry: err: ERROR: a table (SQLSTATE 08006) (SQLSTATE {err})")
    assert drop_failure(err) is failure


def test_a_lease_that_vault_does_not_have() -> None:
    assert is_gone(answered(400, "lease not found"))
    assert not is_gone(answered(400, DOWN))


@pytest.mark.parametrize("raised", ["lease not found", "x\nlease not found", "lease not found\n"])
def test_a_statement_cannot_say_that_a_lease_is_gone(raised: str) -> None:
    """Of a renewal statement of a team: else its database user would outlive what the ledger knows."""
    assert not is_gone(answered(400, f"failed to renew entry: err: ERROR: {raised} (SQLSTATE P0001)"))
