"""Approvers of one role of the operator's catalog file, over gRPC (L)."""

from __future__ import annotations

import secrets
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from leasegate.access.v1 import approval_pb2
from leasegate.access.v1 import approver_service_pb2 as approver
from leasegate.access.v1 import requester_service_pb2 as requester
from services.common import errors
from tests.integration.access_world import (
    ALICE,
    BOB,
    CAROL,
    Callee,
    World,
    approve,
    ask,
    deny,
    in_process,
    world,
)
from tests.servers import Servers


@pytest.fixture
def made(servers: Servers, tmp_path: Path) -> Iterator[World]:
    with world(servers, tmp_path, mount="team/approvers") as found:
        yield found


def name_approvers(made: World, *names: str) -> None:
    catalog = yaml.safe_load(made.catalog_file.read_text())
    catalog["roles"][0]["approvers"] = list(names)
    made.catalog_file.write_text(yaml.safe_dump(catalog))


def listed(callee: Callee, san: str) -> set[str]:
    found = callee.as_(san).approver.ListPendingAccessRequests(approver.ListPendingAccessRequestsRequest())
    return {each.id for each in found.access_requests}


def claim(callee: Callee, uid: str) -> None:
    callee.as_(BOB).requester.ClaimCredential(requester.ClaimCredentialRequest(access_request_id=uid))


def withdraw(callee: Callee, uid: str) -> None:
    callee.as_(BOB).requester.ReleaseAccessRequest(
        requester.ReleaseAccessRequestRequest(request_id=secrets.token_hex(8), access_request_id=uid)
    )


def test_a_role_is_decided_by_its_own_approvers(made: World) -> None:
    name_approvers(made, CAROL)
    with in_process(made) as callee:
        uid = ask(callee, san=BOB).id
        for decide in (approve, deny):
            with pytest.raises(errors.CallerNotAllowedError, match=f"{ALICE} is no approver of the role reader: ask"):
                decide(callee, uid, san=ALICE)
        assert (uid in listed(callee, ALICE), uid in listed(callee, CAROL)) == (False, True)
        with pytest.raises(errors.ApprovalRequiredError):
            claim(callee, uid)
        approve(callee, uid, san=CAROL)
        claim(callee, uid)
        with pytest.raises(errors.CallerNotAllowedError):
            deny(callee, uid, san=ALICE)
        withdraw(callee, uid)


def test_an_approver_that_is_taken_out_takes_its_approvals_along(made: World) -> None:
    name_approvers(made, CAROL)
    with in_process(made) as callee:
        uid = ask(callee, san=BOB).id
        approve(callee, uid, san=CAROL)
    name_approvers(made, ALICE)
    with in_process(made) as callee:
        with pytest.raises(errors.ApprovalRequiredError):
            claim(callee, uid)
        with pytest.raises(errors.CallerNotAllowedError):
            approve(callee, uid, san=CAROL)
        assert approve(callee, uid, san=ALICE).approval_state == approval_pb2.APPROVAL_STATE_APPROVED
        claim(callee, uid)
        withdraw(callee, uid)
