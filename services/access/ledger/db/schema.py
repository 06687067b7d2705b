"""The tables, with columns named as in ``services.access.domain.models``.

Their history is in ``migrations``; a test compares the two.
"""

from __future__ import annotations

from dataclasses import asdict
from enum import IntEnum, StrEnum
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Dialect

from services.access.domain.models import (
    Approval,
    AttemptState,
    CleanupRoleState,
    DropBy,
    Origin,
    Priority,
    RoleWords,
    Subject,
)

VERSION = "0001"
"""The newest migration."""

metadata = sa.MetaData()


class Word(sa.types.TypeDecorator[StrEnum]):
    """A StrEnum, stored as its word."""

    impl = sa.String
    cache_ok = True

    def __init__(self, kind: type[StrEnum]) -> None:
        super().__init__()
        self.kind = kind

    def process_bind_param(self, value: StrEnum | None, dialect: Dialect) -> str | None:
        """Write the word."""
        return None if value is None else str(value)

    def process_result_value(self, value: Any, dialect: Dialect) -> StrEnum | None:
        """Read the word."""
        return None if value is None else self.kind(value)


class Number(sa.types.TypeDecorator[IntEnum]):
    """An IntEnum, stored as its number."""

    impl = sa.Integer
    cache_ok = True

    def __init__(self, kind: type[IntEnum]) -> None:
        super().__init__()
        self.kind = kind

    def process_bind_param(self, value: IntEnum | None, dialect: Dialect) -> int | None:
        """Write the number."""
        return None if value is None else int(value)

    def process_result_value(self, value: Any, dialect: Dialect) -> IntEnum | None:
        """Read the number."""
        return None if value is None else self.kind(value)


class Texts(sa.types.TypeDecorator[tuple[str, ...]]):
    """A tuple of strings, as JSON."""

    impl = sa.JSON
    cache_ok = True

    def process_bind_param(self, value: tuple[str, ...] | None, dialect: Dialect) -> list[str]:
        """Write a list."""
        return list(value or ())

    def process_result_value(self, value: Any, dialect: Dialect) -> tuple[str, ...]:
        """Read a list."""
        return tuple(value or ())


class Subjects(sa.types.TypeDecorator[tuple[Subject, ...]]):
    """Subjects, as JSON."""

    impl = sa.JSON
    cache_ok = True

    def process_bind_param(self, value: tuple[Subject, ...] | None, dialect: Dialect) -> list[dict[str, str]]:
        """Write a list of objects."""
        return [asdict(subject) for subject in value or ()]

    def process_result_value(self, value: Any, dialect: Dialect) -> tuple[Subject, ...]:
        """Read a list of objects."""
        return tuple(Subject(**each) for each in value or ())


class Words(sa.types.TypeDecorator[RoleWords]):
    """What an approver is shown of a db_role, as JSON."""

    impl = sa.JSON
    cache_ok = True

    def process_bind_param(self, value: RoleWords | None, dialect: Dialect) -> dict[str, Any]:
        """Write an object."""
        return asdict(value or RoleWords())

    def process_result_value(self, value: Any, dialect: Dialect) -> RoleWords:
        """Read an object."""
        read: dict[str, Any] = {name: tuple(each) if isinstance(each, list) else each for name, each in value.items()}
        return RoleWords(**read)


def row_of(table: sa.Table, record: object, *, without: tuple[str, ...] = ()) -> dict[str, Any]:
    """Return the columns of a record, without those that the database assigns."""
    return {column.name: getattr(record, column.name) for column in table.columns if column.name not in without}


def _text(name: str, default: str | None = None) -> sa.Column[str]:
    return sa.Column(name, sa.String, nullable=False, default=default)


def _time(name: str) -> sa.Column[float]:
    return sa.Column(name, sa.Float, nullable=True)


meta = sa.Table("meta", metadata, sa.Column("name", sa.String, primary_key=True), _text("value"))

TARGET_KEY = ("cluster", "cluster_uid", "namespace", "name", "key_digest")
"""Columns that tell one VaultTarget from another."""

vault_targets = sa.Table(
    "vault_targets",
    metadata,
    sa.Column("id", sa.Integer, primary_key=True),
    _text("cluster"),
    _text("namespace"),
    _text("name"),
    _text("key_digest"),
    _text("address"),
    _text("vault"),
    _text("vault_namespace"),
    sa.Column("ca_bundle", sa.LargeBinary, nullable=False),
    sa.Column("insecure_skip_tls_verify", sa.Boolean, nullable=False),
    _text("server_name"),
    sa.Column("ensured_at", sa.Float, nullable=False),
    _text("cluster_uid"),
    sa.UniqueConstraint(*TARGET_KEY, name="vault_targets_key"),
    sqlite_autoincrement=True,  # rows are pruned, and what is known of a number in memory is of that Vault for ever
)

db_roles = sa.Table(
    "db_roles",
    metadata,
    sa.Column("id", sa.Integer, primary_key=True),
    _text("cluster"),
    _text("cluster_uid"),
    _text("namespace"),
    _text("name"),
    sa.Column("target", sa.Integer, sa.ForeignKey("vault_targets.id"), nullable=False),
    _text("mount"),
    _text("vault_role"),
    _text("db_name"),
    sa.Column("revocation_statements", Texts, nullable=False),
    _time("default_ttl_s"),
    _time("max_ttl_s"),
    _text("digest"),
    sa.Column("deleted", sa.Boolean, nullable=False),
    sa.Column("words", Words, nullable=False),
    sa.Column("approvals", sa.Integer, nullable=False),
    sa.Column("approvers", Texts, nullable=False),
    sa.Column("self_approval", sa.Boolean, nullable=False),
    sa.Column("configured", sa.Boolean, nullable=False),
    sa.Column("allow_from", Texts, nullable=False),
    sa.Column("allow_subjects_from", Texts, nullable=False),
    _text("not_allowed"),
    sa.Column("pause_number", sa.Integer, nullable=False),
    _time("paused_at"),
    _text("paused_by"),
    sa.Column("pause_shown", sa.Boolean, nullable=False),
    sa.UniqueConstraint("cluster", "cluster_uid", "namespace", "name", name="db_roles_key"),
)

access_requests = sa.Table(
    "access_requests",
    metadata,
    sa.Column("uid", sa.String, primary_key=True),
    sa.Column("origin", Word(Origin), nullable=False),
    _text("owner"),
    _text("cluster"),
    _text("cluster_uid"),
    _text("namespace"),
    _text("name"),
    sa.Column("generation", sa.Integer, nullable=False),
    _text("role_namespace"),
    _text("role_name"),
    sa.Column("subjects", Subjects, nullable=False),
    _time("ttl_s"),
    _text("requester"),
    _text("reason"),
    _text("ticket"),
    _text("on_behalf_of"),
    _text("verified_by"),
    sa.Column("created_at", sa.Float, nullable=False),
    sa.Column("approval", Word(Approval), nullable=False),
    _text("digest"),
    sa.Column("outdated", sa.Boolean, nullable=False),
    sa.Column("last_sequence", sa.Integer, nullable=False),
    sa.Column("rotation_due", sa.Boolean, nullable=False),
    _time("first_issued_at"),
    _time("ends_at"),
    _text("error_reason"),
    _text("error_message"),
    sa.Column("failures", sa.Integer, nullable=False),
    _time("retry_at"),
    _time("due_at"),
    _time("deleted_at"),
    sa.Index("requests_work", "due_at"),
    sa.Index("requests_deleted", "deleted_at"),
    sa.Index("requests_role", "role_name", "role_namespace", "uid"),
    sa.Index("requests_owner", "owner", "created_at"),
    sa.Index("requests_namespace", "namespace", "approval"),
)

decisions = sa.Table(
    "decisions",
    metadata,
    sa.Column("id", sa.Integer, primary_key=True),
    sa.Column("access_request_id", sa.String, sa.ForeignKey("access_requests.uid"), nullable=False),
    sa.Column("kind", Word(Approval), nullable=False),
    _text("approver"),
    sa.Column("proof", sa.Integer, nullable=False),
    _text("reason"),
    _text("message"),
    sa.Column("decided_at", sa.Float, nullable=False),
    _text("sent_digest"),
    _text("digest"),
    sa.Column("self_approved", sa.Boolean, nullable=False),
    sa.Index("decisions_request", "access_request_id", "id"),
)

attempts = sa.Table(
    "attempts",
    metadata,
    sa.Column("id", sa.String, primary_key=True),
    sa.Column("access_request_id", sa.String, sa.ForeignKey("access_requests.uid"), nullable=False),
    sa.Column("sequence", sa.Integer, nullable=False),
    sa.Column("state", Word(AttemptState), nullable=False),
    _text("grant"),
    _text("role_digest"),
    sa.Column("target", sa.Integer, sa.ForeignKey("vault_targets.id"), nullable=False),
    _text("mount"),
    _text("vault_role"),
    _text("db_name"),
    sa.Column("revocation_statements", Texts, nullable=False),
    _time("default_ttl_s"),
    _time("max_ttl_s"),
    _text("database_user"),
    _text("accessor"),
    _time("token_ends_at"),
    _text("lease_id"),
    sa.Column("lease_ttl_s", sa.Float, nullable=False),
    sa.Column("renewable", sa.Boolean, nullable=False),
    sa.Column("begun_at", sa.Float, nullable=False),
    _time("issued_at"),
    _time("acknowledged_at"),
    _time("renewed_at"),
    _time("ends_at"),
    _time("max_ends_at"),
    _time("closed_at"),
    sa.Column("renewal_failures", sa.Integer, nullable=False),
    sa.Column("drop_by", Word(DropBy), nullable=False),
    _time("locked_out_at"),
    sa.Column("failures", sa.Integer, nullable=False),
    _text("error"),
    _text("end_reason"),
    _time("revocation_due_at"),
    sa.Column("priority", Number(Priority), nullable=False),
    _time("due_at"),
    _time("overlap_ends_at"),
    _text("tenant"),
    sa.UniqueConstraint("access_request_id", "sequence", name="attempts_sequence"),
    sa.Index("attempts_work", "priority", "due_at", "tenant"),
    sa.Index("attempts_tenant", "tenant", "state"),
    sa.Index("attempts_state", "state"),
    sa.Index("attempts_closed", "closed_at"),
)

recoveries = sa.Table(
    "recoveries",
    metadata,
    sa.Column("sequence", sa.Integer, primary_key=True),
    sa.Column("attempt", sa.String, sa.ForeignKey("attempts.id"), nullable=False),
    _text("cleanup_role"),
    _text("accessor"),
    sa.Column("second", sa.Boolean, nullable=False),
    _text("lease_id"),
    _time("done_at"),
    sa.Index("recoveries_attempt", "attempt", "sequence"),
    sqlite_autoincrement=True,  # a number is never assigned twice, even if rows are pruned
)

cleanup_roles = sa.Table(
    "cleanup_roles",
    metadata,
    sa.Column("name", sa.String, primary_key=True),
    sa.Column("target", sa.Integer, sa.ForeignKey("vault_targets.id"), primary_key=True),
    _text("mount"),
    _text("db_name"),
    sa.Column("revocation_statements", Texts, nullable=False),
    sa.Column("drop_by", Word(DropBy), nullable=False),
    sa.Column("state", Word(CleanupRoleState), nullable=False),
    _text("error"),
)

reassessments = sa.Table(
    "reassessments",
    metadata,
    sa.Column("db_role", sa.Integer, sa.ForeignKey("db_roles.id"), primary_key=True),
    sa.Column("since", sa.Float, nullable=False),
    _text("after"),
    sa.Column("again", sa.Boolean, nullable=False),
    sa.Column("leases", sa.Boolean, nullable=False),
)

issuance_pauses = sa.Table(
    "issuance_pauses",
    metadata,
    sa.Column("vault", sa.String, primary_key=True),
    sa.Column("vault_namespace", sa.String, primary_key=True),
    sa.Column("mount", sa.String, primary_key=True),
    sa.Column("connection", sa.String, primary_key=True),
    sa.Column("changing", sa.Boolean, primary_key=True),
    sa.Column("cluster_uid", sa.String, primary_key=True),
)

answers = sa.Table(
    "answers",
    metadata,
    sa.Column("caller", sa.String, primary_key=True),
    sa.Column("method", sa.String, primary_key=True),
    sa.Column("request_id", sa.String, primary_key=True),
    _text("content"),
    _text("subject"),
    sa.Column("answered_at", sa.Float, nullable=False),
    sa.Index("answers_time", "answered_at"),
)
