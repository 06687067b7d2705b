"""What is written to Vault for a role, and what an approver approves of it."""

from __future__ import annotations

from dataclasses import replace

import pytest

from services.roles.definition import Definition, cleanup_role
from services.roles.statements import CHECK_ENDED, DROP_UNOWNED, FORCE_DROP, LOCKOUT, REMEMBER, checked

CHECKED = (REMEMBER, "x", CHECK_ENDED)
BASE = Definition(db_name="c", creation_statements=('CREATE ROLE "{{name}}"',), default_ttl_s=3600, max_ttl_s=86400)


def test_everything_is_always_sent() -> None:
    assert BASE.payload() == {
        "db_name": "c",
        "creation_statements": ['CREATE ROLE "{{name}}"'],
        "revocation_statements": [],
        "rollback_statements": [],
        "renew_statements": [],
        "default_ttl": 3600,
        "max_ttl": 86400,
    }


@pytest.mark.parametrize(
    "change",
    [
        {"db_name": "other"},
        {"creation_statements": ("x {{name}}",)},
        {"revocation_statements": ("x",)},
        {"rollback_statements": ("x",)},
        {"renew_statements": ("x",)},
        {"default_ttl_s": 1},
        {"max_ttl_s": 1},
    ],
)
def test_the_digest_is_of_all_of_it(change: dict[str, object]) -> None:
    changed = replace(BASE, **change)  # type: ignore[arg-type]
    assert changed.digest(mount="m", vault_role="r") != BASE.digest(mount="m", vault_role="r")
    assert not BASE.is_in(changed.payload())
    assert BASE.is_in(BASE.payload())


def test_the_digest_names_the_place_and_stays_the_same() -> None:
    digest = BASE.digest(mount="m", vault_role="r")
    assert len(digest) == 64
    assert digest != BASE.digest(mount="m2", vault_role="r")
    assert digest != BASE.digest(mount="m", vault_role="r2")
    moved = replace(BASE, creation_statements=("a", "b"))
    assert moved.digest(mount="m", vault_role="r") != replace(BASE, creation_statements=("a,b",)).digest(
        mount="m", vault_role="r"
    )


def test_a_vault_that_leaves_empty_things_out_shows_the_same() -> None:
    bare = replace(BASE, default_ttl_s=0, max_ttl_s=0)
    assert bare.is_in(
        {"db_name": "c", "creation_statements": ['CREATE ROLE "{{name}}"'], "revocation_statements": None}
    )


def test_revocation_statements_work_twice_and_none_stay_none() -> None:
    assert replace(BASE, revocation_statements=("x",)).resolved().revocation_statements == CHECKED
    assert BASE.resolved() == BASE


def test_h7_what_looks_checked_is_checked() -> None:
    assert checked((REMEMBER,)) == (REMEMBER, REMEMBER, CHECK_ENDED)


def test_cleanup_roles() -> None:
    plain = cleanup_role(db_name="c", revocation_statements=(), force_drop=False)
    assert plain.creation_statements == LOCKOUT
    assert plain.revocation_statements == ()
    asked = cleanup_role(db_name="c", revocation_statements=("x",), force_drop=False)
    assert asked.creation_statements == LOCKOUT
    first, *_, allowed, team, check = asked.revocation_statements
    assert (first, team, check) == (LOCKOUT[0], "x", CHECK_ENDED)
    assert allowed == 'ALTER ROLE "{{name}}" LOGIN;'
    assert cleanup_role(db_name="c", revocation_statements=("x",), force_drop=True).revocation_statements == FORCE_DROP
    unowned = cleanup_role(db_name="c", revocation_statements=(), force_drop=True, keep_owners=True)
    assert unowned.revocation_statements == DROP_UNOWNED
    assert not any("REASSIGN" in statement for statement in unowned.revocation_statements)
    assert (plain.default_ttl_s, plain.max_ttl_s) == (60, 60)


def test_a_lockout_ends_sessions_before_it_waits_for_a_lock() -> None:
    ended = next(number for number, statement in enumerate(LOCKOUT) if "pg_terminate_backend" in statement)
    locked = next(number for number, statement in enumerate(LOCKOUT) if "NOLOGIN PASSWORD NULL" in statement)
    assert ended < locked
    assert all("pg_terminate_backend(pid)" in statement for statement in LOCKOUT if "terminate" in statement)
