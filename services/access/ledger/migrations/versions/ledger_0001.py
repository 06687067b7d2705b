"""The first version of the ledger."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None


def upgrade() -> None:
    """Make all tables."""
    for make in (_answers, _meta, _quiesced, _requests, _targets, _adopters, _attempts, _decisions, _roles, _adoptions):
        make()


def _answers() -> None:
    op.create_table(
        "answers",
        sa.Column("caller", sa.String(), nullable=False),
        sa.Column("method", sa.String(), nullable=False),
        sa.Column("request_id", sa.String(), nullable=False),
        sa.Column("content", sa.String(), nullable=False),
        sa.Column("subject", sa.String(), nullable=False),
        sa.Column("answered_at", sa.Float(), nullable=False),
        sa.PrimaryKeyConstraint("caller", "method", "request_id"),
    )
    op.create_index("answers_time", "answers", ["answered_at"], unique=False)


def _meta() -> None:
    op.create_table(
        "meta",
        sa.Column("name", sa.String(), nullable=False),
        sa.Column("value", sa.String(), nullable=False),
        sa.PrimaryKeyConstraint("name"),
    )


def _quiesced() -> None:
    op.create_table(
        "quiesced",
        sa.Column("server", sa.String(), nullable=False),
        sa.Column("vault_namespace", sa.String(), nullable=False),
        sa.Column("mount", sa.String(), nullable=False),
        sa.Column("connection", sa.String(), nullable=False),
        sa.PrimaryKeyConstraint("server", "vault_namespace", "mount", "connection"),
    )


def _requests() -> None:
    op.create_table(
        "requests",
        sa.Column("uid", sa.String(), nullable=False),
        sa.Column("origin", sa.String(), nullable=False),
        sa.Column("owner", sa.String(), nullable=False),
        sa.Column("cluster", sa.String(), nullable=False),
        sa.Column("cluster_uid", sa.String(), nullable=False),
        sa.Column("namespace", sa.String(), nullable=False),
        sa.Column("name", sa.String(), nullable=False),
        sa.Column("generation", sa.Integer(), nullable=False),
        sa.Column("role_namespace", sa.String(), nullable=False),
        sa.Column("role_name", sa.String(), nullable=False),
        sa.Column("subjects", sa.JSON(), nullable=False),
        sa.Column("ttl_s", sa.Float(), nullable=True),
        sa.Column("requester", sa.String(), nullable=False),
        sa.Column("reason", sa.String(), nullable=False),
        sa.Column("created_at", sa.Float(), nullable=False),
        sa.Column("approval", sa.String(), nullable=False),
        sa.Column("digest", sa.String(), nullable=False),
        sa.Column("outdated", sa.Boolean(), nullable=False),
        sa.Column("last_number", sa.Integer(), nullable=False),
        sa.Column("due", sa.Boolean(), nullable=False),
        sa.Column("first_issued_at", sa.Float(), nullable=True),
        sa.Column("ends_at", sa.Float(), nullable=True),
        sa.Column("error_reason", sa.String(), nullable=False),
        sa.Column("error_message", sa.String(), nullable=False),
        sa.Column("tries", sa.Integer(), nullable=False),
        sa.Column("retry_at", sa.Float(), nullable=True),
        sa.Column("work_at", sa.Float(), nullable=True),
        sa.PrimaryKeyConstraint("uid"),
    )
    op.create_index("requests_owner", "requests", ["owner", "created_at"], unique=False)
    op.create_index("requests_role", "requests", ["role_name", "role_namespace"], unique=False)
    op.create_index("requests_work", "requests", ["work_at"], unique=False)


def _targets() -> None:
    op.create_table(
        "targets",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("cluster", sa.String(), nullable=False),
        sa.Column("namespace", sa.String(), nullable=False),
        sa.Column("name", sa.String(), nullable=False),
        sa.Column("key_digest", sa.String(), nullable=False),
        sa.Column("address", sa.String(), nullable=False),
        sa.Column("server", sa.String(), nullable=False),
        sa.Column("vault_namespace", sa.String(), nullable=False),
        sa.Column("ca_bundle", sa.LargeBinary(), nullable=False),
        sa.Column("insecure_skip_tls_verify", sa.Boolean(), nullable=False),
        sa.Column("server_name", sa.String(), nullable=False),
        sa.Column("auth_mount", sa.String(), nullable=False),
        sa.PrimaryKeyConstraint("id"),
        sa.UniqueConstraint("cluster", "namespace", "name", "key_digest", name="targets_key"),
    )


def _adopters() -> None:
    op.create_table(
        "adopters",
        sa.Column("name", sa.String(), nullable=False),
        sa.Column("target", sa.Integer(), nullable=False),
        sa.Column("mount", sa.String(), nullable=False),
        sa.Column("db_name", sa.String(), nullable=False),
        sa.Column("revocation_statements", sa.JSON(), nullable=False),
        sa.Column("finish", sa.Boolean(), nullable=False),
        sa.Column("state", sa.String(), nullable=False),
        sa.Column("error", sa.String(), nullable=False),
        sa.ForeignKeyConstraint(
            ["target"],
            ["targets.id"],
        ),
        sa.PrimaryKeyConstraint("name", "target"),
    )


def _attempts() -> None:
    op.create_table(
        "attempts",
        sa.Column("id", sa.String(), nullable=False),
        sa.Column("request", sa.String(), nullable=False),
        sa.Column("number", sa.Integer(), nullable=False),
        sa.Column("state", sa.String(), nullable=False),
        sa.Column("grant", sa.String(), nullable=False),
        sa.Column("role_digest", sa.String(), nullable=False),
        sa.Column("target", sa.Integer(), nullable=False),
        sa.Column("mount", sa.String(), nullable=False),
        sa.Column("vault_role", sa.String(), nullable=False),
        sa.Column("db_name", sa.String(), nullable=False),
        sa.Column("revocation_statements", sa.JSON(), nullable=False),
        sa.Column("default_ttl_s", sa.Float(), nullable=True),
        sa.Column("max_ttl_s", sa.Float(), nullable=True),
        sa.Column("login", sa.String(), nullable=False),
        sa.Column("accessor", sa.String(), nullable=False),
        sa.Column("token_ends_at", sa.Float(), nullable=True),
        sa.Column("lease_id", sa.String(), nullable=False),
        sa.Column("lease_ttl_s", sa.Float(), nullable=False),
        sa.Column("renewable", sa.Boolean(), nullable=False),
        sa.Column("begun_at", sa.Float(), nullable=False),
        sa.Column("issued_at", sa.Float(), nullable=True),
        sa.Column("acked_at", sa.Float(), nullable=True),
        sa.Column("renewed_at", sa.Float(), nullable=True),
        sa.Column("ends_at", sa.Float(), nullable=True),
        sa.Column("max_ends_at", sa.Float(), nullable=True),
        sa.Column("closed_at", sa.Float(), nullable=True),
        sa.Column("renew_tries", sa.Integer(), nullable=False),
        sa.Column("finish", sa.Boolean(), nullable=False),
        sa.Column("tries", sa.Integer(), nullable=False),
        sa.Column("error", sa.String(), nullable=False),
        sa.Column("lane", sa.Integer(), nullable=False),
        sa.Column("work_at", sa.Float(), nullable=True),
        sa.ForeignKeyConstraint(
            ["request"],
            ["requests.uid"],
        ),
        sa.ForeignKeyConstraint(
            ["target"],
            ["targets.id"],
        ),
        sa.PrimaryKeyConstraint("id"),
        sa.UniqueConstraint("request", "number", name="attempts_number"),
    )
    op.create_index("attempts_state", "attempts", ["state"], unique=False)
    op.create_index("attempts_work", "attempts", ["lane", "work_at"], unique=False)


def _decisions() -> None:
    op.create_table(
        "decisions",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("request", sa.String(), nullable=False),
        sa.Column("kind", sa.String(), nullable=False),
        sa.Column("approver", sa.String(), nullable=False),
        sa.Column("proof", sa.Integer(), nullable=False),
        sa.Column("reason", sa.String(), nullable=False),
        sa.Column("message", sa.String(), nullable=False),
        sa.Column("decided_at", sa.Float(), nullable=False),
        sa.Column("sent_digest", sa.String(), nullable=False),
        sa.Column("digest", sa.String(), nullable=False),
        sa.Column("self_approved", sa.Boolean(), nullable=False),
        sa.ForeignKeyConstraint(
            ["request"],
            ["requests.uid"],
        ),
        sa.PrimaryKeyConstraint("id"),
    )
    op.create_index("decisions_request", "decisions", ["request", "id"], unique=False)


def _roles() -> None:
    op.create_table(
        "roles",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("cluster", sa.String(), nullable=False),
        sa.Column("cluster_uid", sa.String(), nullable=False),
        sa.Column("namespace", sa.String(), nullable=False),
        sa.Column("name", sa.String(), nullable=False),
        sa.Column("target", sa.Integer(), nullable=False),
        sa.Column("mount", sa.String(), nullable=False),
        sa.Column("vault_role", sa.String(), nullable=False),
        sa.Column("db_name", sa.String(), nullable=False),
        sa.Column("revocation_statements", sa.JSON(), nullable=False),
        sa.Column("default_ttl_s", sa.Float(), nullable=True),
        sa.Column("max_ttl_s", sa.Float(), nullable=True),
        sa.Column("digest", sa.String(), nullable=False),
        sa.Column("gone", sa.Boolean(), nullable=False),
        sa.Column("approvals", sa.Integer(), nullable=False),
        sa.Column("self_approval", sa.Boolean(), nullable=False),
        sa.Column("configured", sa.Boolean(), nullable=False),
        sa.ForeignKeyConstraint(
            ["target"],
            ["targets.id"],
        ),
        sa.PrimaryKeyConstraint("id"),
        sa.UniqueConstraint("cluster", "cluster_uid", "namespace", "name", name="roles_key"),
    )


def _adoptions() -> None:
    op.create_table(
        "adoptions",
        sa.Column("number", sa.Integer(), nullable=False),
        sa.Column("attempt", sa.String(), nullable=False),
        sa.Column("adopter", sa.String(), nullable=False),
        sa.Column("accessor", sa.String(), nullable=False),
        sa.Column("second", sa.Boolean(), nullable=False),
        sa.Column("lease_id", sa.String(), nullable=False),
        sa.Column("done_at", sa.Float(), nullable=True),
        sa.ForeignKeyConstraint(
            ["attempt"],
            ["attempts.id"],
        ),
        sa.PrimaryKeyConstraint("number"),
        sqlite_autoincrement=True,
    )
    op.create_index("adoptions_attempt", "adoptions", ["attempt", "number"], unique=False)
