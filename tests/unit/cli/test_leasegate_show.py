"""The operators' table of leases."""

from __future__ import annotations

from datetime import UTC, datetime

from cli.leasegate import show
from leasegate.access.v1 import lease_pb2

NOW = datetime(2026, 11, 24, tzinfo=UTC)


def test_why_leases_were_ended_is_a_column_where_any_was() -> None:
    live = lease_pb2.Lease(handle="a" * 12, state=lease_pb2.LEASE_STATE_ACTIVE, access_request_id="uid-1")
    ended = lease_pb2.Lease(
        handle="b" * 12,
        state=lease_pb2.LEASE_STATE_CLOSED,
        access_request_id="uid-2",
        end_reason="its holder did not renew it",
    )
    assert "END REASON" not in show.leases([live], now=NOW)
    header, first, second = show.leases([live, ended], now=NOW).splitlines()
    assert header.endswith("END REASON")
    assert first.endswith("uid-1")
    assert second.endswith("its holder did not renew it")


def test_a_user_that_is_locked_out_is_shown_with_the_reason() -> None:
    locked = lease_pb2.Lease(
        handle="c" * 12,
        state=lease_pb2.LEASE_STATE_REVOKING,
        end_reason="its access request was denied",
        revocation_error="PostgreSQL refused with SQLSTATE 2BP01",
    )
    locked.lock_time.FromDatetime(NOW)
    _, line = show.leases([locked], now=NOW).splitlines()
    assert line.split("   ")[1] == "locked out"
    assert line.endswith(
        "its access request was denied; not dropped yet, because PostgreSQL refused with SQLSTATE 2BP01"
    )
