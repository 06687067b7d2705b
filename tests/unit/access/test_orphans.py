"""The comparison of ledger, Vault and PostgreSQL: what comes or goes while they are read is no orphan."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest

from services.access.domain import names, orphans
from services.access.domain.models import AttemptState
from services.access.domain.orphans import LeaseEntry, Orphan, OrphanKind, Place, SkippedMount

HERE, THERE = Place("https://vault:8200", "", "team/a"), Place("https://vault:8200", "", "team/b")
ROLE, ID = "k8s.-.demo.r", "abcdefghij0123456789"
USER = f"token-demo-r-{ID}"
NOW = 1000.0


def lease(number: int, role: str = ROLE) -> str:
    return f"team/a/creds/{role}/{number}"


def entry(lease_id: str = "", state: AttemptState = AttemptState.ACTIVE, **changes: Any) -> LeaseEntry:
    usual = {"place": HERE, "role": ROLE, "database_user": USER, "access_request_id": "uid-1", "ends_at": NOW + 60}
    return LeaseEntry(lease_id=lease_id, state=state, **{**usual, **changes})


def found(
    before: Sequence[LeaseEntry], after: Sequence[LeaseEntry], *listed: str, ended: Sequence[LeaseEntry] = ()
) -> tuple[list[Orphan], list[SkippedMount]]:
    return orphans.leases(
        before, after, listed={HERE: set(listed)}, ended={each.lease_id: each for each in ended}, now=NOW
    )


def kinds(*args: Any, **options: Any) -> list[OrphanKind]:
    return [orphan.kind for orphan in found(*args, **options)[0]]


def test_what_both_know_is_no_finding() -> None:
    known = [entry(lease(1)), entry(lease(2), AttemptState.RETIRING), entry(lease(3), AttemptState.REVOKING)]
    assert found(known, known, lease(1), lease(2), lease(3)) == ([], [])


def test_a_lease_that_the_ledger_does_not_know() -> None:
    orphans, skipped_mounts = found([], [], lease(1))
    assert not skipped_mounts
    assert [(o.kind, o.mount, o.role, o.lease_id) for o in orphans] == [
        (OrphanKind.LEASE_UNKNOWN, "team/a", ROLE, lease(1))
    ]
    assert "vault lease revoke" in orphans[0].advice


def test_a_lease_that_the_ledger_counts_as_ended() -> None:
    orphans, _ = found([], [], lease(1), ended=[entry(lease(1), AttemptState.CLOSED)])
    assert [(o.kind, o.username, o.request) for o in orphans] == [(OrphanKind.LEASE_CLOSED, USER, "uid-1")]


def test_a_lease_that_vault_does_not_know() -> None:
    assert kinds([entry(lease(1))], [entry(lease(1))]) == [OrphanKind.LEASE_MISSING]


@pytest.mark.parametrize("state", [AttemptState.REVOKING, AttemptState.RECOVERING])
def test_a_lease_that_is_being_revoked_may_be_missing_in_vault(state: AttemptState) -> None:
    assert kinds([entry(lease(1), state)], [entry(lease(1), state)]) == []


def test_an_expired_lease_may_be_missing_in_vault() -> None:
    over = entry(lease(1), ends_at=NOW - 1)
    assert kinds([over], [over]) == []


def test_a_lease_that_came_while_vault_was_asked() -> None:
    assert kinds([], [entry(lease(1))], lease(1)) == []
    assert kinds([], [entry(lease(1))]) == []


def test_a_lease_that_ended_while_vault_was_asked() -> None:
    assert kinds([entry(lease(1))], [], lease(1), ended=[entry(lease(1), AttemptState.CLOSED)]) == []
    assert kinds([entry(lease(1))], []) == []


@pytest.mark.parametrize("state", [AttemptState.ISSUING, AttemptState.REVOKING, AttemptState.RECOVERING])
def test_a_lease_may_be_of_an_attempt_whose_outcome_is_not_known(state: AttemptState) -> None:
    orphans, undecided = found([], [entry("", state)], lease(1))
    assert not orphans
    assert [(each.mount, "scan again" in each.reason) for each in undecided] == [("team/a", True)]
    assert kinds([], [entry("", state, role="k8s.-.demo.other")], lease(1)) == [OrphanKind.LEASE_UNKNOWN]
    assert kinds([], [entry("", state, place=THERE)], lease(1)) == [OrphanKind.LEASE_UNKNOWN]


def test_an_attempt_that_has_not_read_explains_nothing() -> None:
    assert kinds([], [entry("", AttemptState.TOKEN_READY)], lease(1)) == [OrphanKind.LEASE_UNKNOWN]


def test_what_could_not_be_listed_is_not_missing() -> None:
    there = entry("team/b/creds/r/1", place=THERE)
    assert kinds([there], [there]) == []


@pytest.mark.parametrize(
    ("role", "ours"),
    [
        ("k8s.-.demo.x", True),
        ("leasegate-cleanup.0123", True),
        ("reader", True),
        ("somebody-elses", False),
        ("K8s.x", False),
    ],
)
def test_which_roles_are_ours_to_explain(role: str, ours: bool) -> None:
    assert orphans.is_ours(role, known={"reader"}, cleanup_roles="leasegate-cleanup.") is ours


def test_every_database_user_of_leasegate_is_recognised() -> None:
    for namespace, role in (("demo", "r"), ("", "reader"), ("n" * 63, "r" * 200), ("", "Ünïcode role")):
        attempt_id = names.new_attempt_id()
        user = names.database_user_name(names.display_name(attempt_id, namespace=namespace, role=role))
        assert orphans.attempt_id(user) == attempt_id


@pytest.mark.parametrize(
    "user",
    ["postgres", "token-x", f"tok-demo-{ID}", f"token-demo-{ID}x", f"v-token-demo-{ID}", f"token-{'x' * 60}-{ID}"],
)
def test_other_database_users_are_not_compared(user: str) -> None:
    assert orphans.attempt_id(user) is None
    assert orphans.database_users([user], {}) == []


def test_a_database_user_of_an_unknown_attempt() -> None:
    (orphan,) = orphans.database_users([USER], {})
    assert (orphan.kind, orphan.username) == (OrphanKind.DATABASE_USER_UNKNOWN, USER)
    assert f'DROP ROLE "{USER}"' in orphan.advice


@pytest.mark.parametrize("state", list(AttemptState))
def test_a_database_user_is_explained_while_its_attempt_is_open(state: AttemptState) -> None:
    found = orphans.database_users([USER], {ID: entry(state=state)})
    assert [orphan.kind for orphan in found] == (
        [OrphanKind.DATABASE_USER_CLOSED] if state is AttemptState.CLOSED else []
    )
