"""What ledger, Vault and PostgreSQL disagree about: found whatever comes or goes while they are read, and nothing else."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest

from services.access import compare, naming
from services.access.compare import Entry, Kind, Orphan, Place, Unlooked
from services.access.records import State

HERE, THERE = Place("https://vault:8200", "", "team/a"), Place("https://vault:8200", "", "team/b")
ROLE, ID = "k8s.-.demo.r", "abcdefghij0123456789"
LOGIN = f"token-demo-r-{ID}"
NOW = 1000.0


def lease(number: int, role: str = ROLE) -> str:
    return f"team/a/creds/{role}/{number}"


def entry(lease_id: str = "", state: State = State.ACTIVE, **changes: Any) -> Entry:
    usual = {"place": HERE, "role": ROLE, "login": LOGIN, "request": "uid-1", "ends_at": NOW + 60}
    return Entry(lease_id=lease_id, state=state, **{**usual, **changes})


def found(
    before: Sequence[Entry], after: Sequence[Entry], *listed: str, ended: Sequence[Entry] = ()
) -> tuple[list[Orphan], list[Unlooked]]:
    return compare.leases(before, after, listed={HERE: set(listed)}, ended={each.lease_id: each for each in ended}, now=NOW)


def kinds(*args: Any, **options: Any) -> list[Kind]:
    return [orphan.kind for orphan in found(*args, **options)[0]]


def test_what_both_know_is_no_finding() -> None:
    known = [entry(lease(1)), entry(lease(2), State.OLD), entry(lease(3), State.END)]
    assert found(known, known, lease(1), lease(2), lease(3)) == ([], [])


def test_a_lease_that_the_ledger_does_not_know() -> None:
    orphans, unlooked = found([], [], lease(1))
    assert not unlooked
    assert [(o.kind, o.mount, o.role, o.lease_id) for o in orphans] == [(Kind.LEASE_UNKNOWN, "team/a", ROLE, lease(1))]
    assert "vault lease revoke" in orphans[0].advice


def test_a_lease_that_the_ledger_counts_as_ended() -> None:
    orphans, _ = found([], [], lease(1), ended=[entry(lease(1), State.CLOSED)])
    assert [(o.kind, o.username, o.request) for o in orphans] == [(Kind.LEASE_ENDED, LOGIN, "uid-1")]


def test_a_lease_that_vault_does_not_know() -> None:
    assert kinds([entry(lease(1))], [entry(lease(1))]) == [Kind.LEASE_MISSING]


@pytest.mark.parametrize("state", [State.END, State.UNDOING])
def test_a_lease_that_is_being_ended_may_be_gone_already(state: State) -> None:
    assert kinds([entry(lease(1), state)], [entry(lease(1), state)]) == []


def test_a_lease_that_is_over_may_be_gone_already() -> None:
    over = entry(lease(1), ends_at=NOW - 1)
    assert kinds([over], [over]) == []


def test_a_lease_that_came_while_vault_was_asked() -> None:
    assert kinds([], [entry(lease(1))], lease(1)) == []
    assert kinds([], [entry(lease(1))]) == []


def test_a_lease_that_ended_while_vault_was_asked() -> None:
    assert kinds([entry(lease(1))], [], lease(1), ended=[entry(lease(1), State.CLOSED)]) == []
    assert kinds([entry(lease(1))], []) == []


@pytest.mark.parametrize("state", [State.READING, State.END, State.UNDOING])
def test_a_lease_may_be_of_an_attempt_whose_outcome_is_not_known(state: State) -> None:
    orphans, undecided = found([], [entry("", state)], lease(1))
    assert not orphans
    assert [(each.mount, "look again" in each.reason) for each in undecided] == [("team/a", True)]
    assert kinds([], [entry("", state, role="k8s.-.demo.other")], lease(1)) == [Kind.LEASE_UNKNOWN]
    assert kinds([], [entry("", state, place=THERE)], lease(1)) == [Kind.LEASE_UNKNOWN]


def test_an_attempt_that_has_not_read_explains_nothing() -> None:
    assert kinds([], [entry("", State.TOKEN)], lease(1)) == [Kind.LEASE_UNKNOWN]


def test_what_could_not_be_listed_is_not_missing() -> None:
    there = entry("team/b/creds/r/1", place=THERE)
    assert kinds([there], [there]) == []


@pytest.mark.parametrize(
    ("role", "ours"),
    [("k8s.-.demo.x", True), ("leasegate-adopter.0123", True), ("reader", True), ("somebody-elses", False), ("K8s.x", False)],
)
def test_which_roles_are_ours_to_explain(role: str, ours: bool) -> None:
    assert compare.is_ours(role, known={"reader"}, adopters="leasegate-adopter.") is ours


def test_every_login_that_we_name_is_recognised() -> None:
    for namespace, role in (("demo", "r"), ("", "reader"), ("n" * 63, "r" * 200), ("", "Ünïcode role")):
        attempt_id = naming.new_attempt_id()
        login = naming.login_name(naming.display_name(attempt_id, namespace=namespace, role=role))
        assert compare.attempt_id(login) == attempt_id


@pytest.mark.parametrize(
    "login", ["postgres", "token-x", f"tok-demo-{ID}", f"token-demo-{ID}x", f"v-token-demo-{ID}", f"token-{'x' * 60}-{ID}"]
)
def test_other_logins_are_none_of_our_business(login: str) -> None:
    assert compare.attempt_id(login) is None
    assert compare.logins([login], {}) == []


def test_a_login_of_an_attempt_that_the_ledger_does_not_know() -> None:
    (orphan,) = compare.logins([LOGIN], {})
    assert (orphan.kind, orphan.username) == (Kind.LOGIN_UNKNOWN, LOGIN)
    assert f'DROP ROLE "{LOGIN}"' in orphan.advice


@pytest.mark.parametrize("state", list(State))
def test_a_login_is_explained_while_its_attempt_is_open(state: State) -> None:
    orphans = compare.logins([LOGIN], {ID: entry(state=state)})
    assert [orphan.kind for orphan in orphans] == ([Kind.LOGIN_ENDED] if state is State.CLOSED else [])
