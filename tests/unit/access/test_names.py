"""Names of attempts, database users and cleanup roles, and digests."""

from __future__ import annotations

import re
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from services.access.domain import names
from services.access.domain.models import DropBy, Subject
from tests.unit.access.access_builders import an_attempt

NAMES = st.from_regex(r"[a-z0-9]([a-z0-9.-]{0,250}[a-z0-9])?", fullmatch=True)


@given(namespace=NAMES, role=NAMES)
def test_the_name_of_a_database_user_fits_and_keeps_the_whole_id(namespace: str, role: str) -> None:
    attempt_id = names.new_attempt_id()
    user = names.database_user_name(names.display_name(attempt_id, namespace=namespace, role=role))
    assert len(user.encode()) <= names.DATABASE_USER_BYTES
    assert user.endswith(f"-{attempt_id}")
    assert re.fullmatch(r"token-[a-zA-Z0-9-]+", user)  # nothing that Vault would change


def test_the_database_user_of_the_guide_names_its_namespace_and_role() -> None:
    assert names.display_name("x" * 20, namespace="demo", role="psql-role") == f"demo-psql-role-{'x' * 20}"
    assert names.display_name("x" * 20, namespace="", role="reader") == f"reader-{'x' * 20}"


def test_another_token_gets_the_same_name() -> None:
    attempt = an_attempt()
    assert names.database_user_name(names.display_name_of(attempt)) == attempt.database_user


def test_ids_differ() -> None:
    made = {names.new_attempt_id() for _ in range(1000)}
    assert len(made) == 1000
    assert all(re.fullmatch(r"[a-z0-9]{20}", each) for each in made)


def test_a_cleanup_role_serves_one_connection_and_one_set_of_statements() -> None:
    def name(mount: str = "m", db: str = "d", statements: tuple[str, ...] = (), drop_by: DropBy = DropBy.TEAM) -> str:
        return names.cleanup_role_name(mount=mount, db_name=db, revocation_statements=statements, drop_by=drop_by)

    made = {
        name(),
        name("n"),
        name(db="e"),
        name(statements=("x",)),
        name(drop_by=DropBy.FORCE),
        name(drop_by=DropBy.UNOWNED),
    }
    assert len(made) == 6
    assert all(re.fullmatch(r"leasegate-cleanup\.[0-9a-f]{12}", each) for each in made)
    assert name() == name()


def test_a_grant_changes_with_all_that_is_approved() -> None:
    who = (Subject("k", "", "n", "ns"),)
    usual: dict[str, Any] = {"role_digest": "r", "subjects": who, "ttl_s": None, "reason": "", "ticket": "", "uid": "u"}
    others = {"role_digest": "q", "subjects": (), "ttl_s": 60.0, "reason": "x", "ticket": "x", "uid": "v"}
    assert others.keys() == usual.keys()
    digests = {names.grant_digest(**usual)} | {names.grant_digest(**usual | {k: v}) for k, v in others.items()}
    assert len(digests) == 1 + len(others)
    assert all(re.fullmatch(r"2:[0-9a-f]{64}", each) for each in digests)


def test_h2_a_db_role_changes_with_where_it_is_and_what_it_does() -> None:
    usual: dict[str, Any] = dict.fromkeys(("vault", "database", "plugin", "mount", "vault_role"), "")
    usual["definition"] = {"creation": ("x",)}
    others: dict[str, Any] = dict.fromkeys(usual, "x") | {"definition": {"creation": ("x", "")}}
    digests = {names.role_digest(**usual)} | {names.role_digest(**usual | {k: v}) for k, v in others.items()}
    assert len(digests) == 1 + len(others)
