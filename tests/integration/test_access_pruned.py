"""A running service prunes its ledger; what is pruned is unknown to it."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import closing

import pytest

from leasegate.access.v1 import requester_service_pb2 as requester
from services.common import errors
from tests.eventually import eventually
from tests.integration.access_world import ALICE, Callee, World, approve, ask, in_process, world
from tests.servers import Servers


@pytest.fixture(scope="module")
def made(servers: Servers, tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    with world(servers, tmp_path_factory.mktemp("pruned")) as found:
        yield found


def rows(made: World) -> dict[str, int]:
    """How many rows there are, by table, as another process sees them."""
    with closing(sqlite3.connect(f"file:{made.ledger}?mode=ro", uri=True)) as ledger:
        tables = ("access_requests", "attempts", "decisions", "answers")
        return {table: ledger.execute(f"SELECT count(*) FROM {table}").fetchone()[0] for table in tables}  # noqa: S608 - names of this repository


def in_use(callee: Callee, request_id: str) -> str:
    """A request with a credential in use."""
    uid = ask(callee, request_id=request_id).id
    approve(callee, uid)
    calls = callee.as_(ALICE).requester
    credential = calls.ClaimCredential(requester.ClaimCredentialRequest(access_request_id=uid)).credential
    calls.AcknowledgeCredential(
        requester.AcknowledgeCredentialRequest(access_request_id=uid, attempt=credential.attempt)
    )
    return uid


def test_what_ended_goes_and_what_is_in_use_stays(made: World) -> None:
    with in_process(made, retention_s=0.0, prune_every_s=0.2) as callee:
        calls = callee.as_(ALICE).requester
        ended, stays = in_use(callee, "ends"), in_use(callee, "stays")
        calls.ReleaseAccessRequest(requester.ReleaseAccessRequestRequest(request_id="release", access_request_id=ended))
        eventually(lambda: rows(made)["access_requests"] == 1, timeout_s=60)
        assert rows(made) == {"access_requests": 1, "attempts": 1, "decisions": 1, "answers": 0}
        with pytest.raises(errors.AccessRequestNotFoundError):
            calls.GetAccessRequest(requester.GetAccessRequestRequest(access_request_id=ended))
        assert (
            calls.GetAccessRequest(
                requester.GetAccessRequestRequest(access_request_id=stays)
            ).access_request.active_attempt
            == 1
        )
        assert ask(callee, request_id="ends").id != ended
        calls.ReleaseAccessRequest(requester.ReleaseAccessRequestRequest(request_id="release", access_request_id=stays))
        eventually(lambda: not made.database_users(), timeout_s=60)
