"""The first version of the ledger."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None


def upgrade() -> None:
    """Make all tables."""
    for make in (
        _access_requests,
        _answers,
        _issuance_pauses,
        _meta,
        _targets,
        _attempts,
        _cleanup_roles,
        _decisions,
        _roles,
        _recoveries,
        _reassessments,
    ):
        make()


def _access_requests() -> None:
    op.create_table(
        "access_requests",
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
        sa.Column("ticket", sa.String(), nullable=False),
        sa.Column("on_behalf_of", sa.String(), nullable=False),
        sa.Column("verified_by", sa.String(), nullable=False),
        sa.Column("created_at", sa.Float(), nullable=False),
        sa.Column("approval", sa.String(), nullable=False),
        sa.Column("digest", sa.String(), nullable=False),
        sa.Column("outdated", sa.Boolean(), nullable=False),
        sa.Column("last_sequence", sa.Integer(), nullable=False),
        sa.Column("rotation_due", sa.Boolean(), nullable=False),
        sa.Column("first_issued_at", sa.Float(), nullable=True),
        sa.Column("ends_at", sa.Float(), nullable=True),
        sa.Column("error_reason", sa.String(), nullable=False),
        sa.Column("error_message", sa.String(), nullable=False),
        sa.Column("failures", sa.Integer(), nullable=False),
        sa.Column("retry_at", sa.Float(), nullable=True),
        sa.Column("due_at", sa.Float(), nullable=True),
        sa.Column("deleted_at", sa.Float(), nullable=True),
        sa.PrimaryKeyConstraint("uid"),
    )
    op.create_index("requests_deleted", "access_requests", ["deleted_at"], unique=False)
    op.create_index("requests_namespace", "access_requests", ["namespace", "approval"], unique=False)
    op.create_index("requests_owner", "access_requests", ["owner", "created_at"], unique=False)
    op.create_index("requests_role", "access_requests", ["role_name", "role_namespace", "uid"], unique=False)
    op.create_index("requests_work", "access_requests", ["due_at"], unique=False)


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


def _issuance_pauses() -> None:
    op.create_table(
        "issuance_pauses",
        sa.Column("vault", sa.String(), nullable=False),
        sa.Column("vault_namespace", sa.String(), nullable=False),
        sa.Column("mount", sa.String(), nullable=False),
        sa.Column("connection", sa.String(), nullable=False),
        sa.Column("changing", sa.Boolean(), nullable=False),
        sa.Column("cluster_uid", sa.String(), nullable=False),
        sa.PrimaryKeyConstraint("vault", "vault_namespace", "mount", "connection", "changing", "cluster_uid"),
    )


def _meta() -> None:
    op.create_table(
        "meta",
        sa.Column("name", sa.String(), nullable=False),
        sa.Column("value", sa.String(), nullable=False),
        sa.PrimaryKeyConstraint("name"),
    )


def _targets() -> None:
    op.create_table(
        "vault_targets",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("cluster", sa.String(), nullable=False),
        sa.Column("namespace", sa.String(), nullable=False),
        sa.Column("name", sa.String(), nullable=False),
        sa.Column("key_digest", sa.String(), nullable=False),
        sa.Column("address", sa.String(), nullable=False),
        sa.Column("vault", sa.String(), nullable=False),
        sa.Column("vault_namespace", sa.String(), nullable=False),
        sa.Column("ca_bundle", sa.LargeBinary(), nullable=False),
        sa.Column("insecure_skip_tls_verify", sa.Boolean(), nullable=False),
        sa.Column("server_name", sa.String(), nullable=False),
        sa.Column("ensured_at", sa.Float(), nullable=False),
        sa.Column("cluster_uid", sa.String(), nullable=False),
        sa.PrimaryKeyConstraint("id"),
        sa.UniqueConstraint("cluster", "cluster_uid", "namespace", "name", "key_digest", name="vault_targets_key"),
        sqlite_autoincrement=True,
    )


def _attempts() -> None:
    op.create_table(
        "attempts",
        sa.Column("id", sa.String(), nullable=False),
        sa.Column("access_request_id", sa.String(), nullable=False),
        sa.Column("sequence", sa.Integer(), nullable=False),
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
        sa.Column("database_user", sa.String(), nullable=False),
        sa.Column("accessor", sa.String(), nullable=False),
        sa.Column("token_ends_at", sa.Float(), nullable=True),
        sa.Column("lease_id", sa.String(), nullable=False),
        sa.Column("lease_ttl_s", sa.Float(), nullable=False),
        sa.Column("renewable", sa.Boolean(), nullable=False),
        sa.Column("begun_at", sa.Float(), nullable=False),
        sa.Column("issued_at", sa.Float(), nullable=True),
        sa.Column("acknowledged_at", sa.Float(), nullable=True),
        sa.Column("renewed_at", sa.Float(), nullable=True),
        sa.Column("ends_at", sa.Float(), nullable=True),
        sa.Column("max_ends_at", sa.Float(), nullable=True),
        sa.Column("closed_at", sa.Float(), nullable=True),
        sa.Column("renewal_failures", sa.Integer(), nullable=False),
        sa.Column("drop_by", sa.String(), nullable=False),
        sa.Column("locked_out_at", sa.Float(), nullable=True),
        sa.Column("failures", sa.Integer(), nullable=False),
        sa.Column("error", sa.String(), nullable=False),
        sa.Column("end_reason", sa.String(), nullable=False),
        sa.Column("revocation_due_at", sa.Float(), nullable=True),
        sa.Column("priority", sa.Integer(), nullable=False),
        sa.Column("due_at", sa.Float(), nullable=True),
        sa.Column("overlap_ends_at", sa.Float(), nullable=True),
        sa.Column("tenant", sa.String(), nullable=False),
        sa.ForeignKeyConstraint(
            ["access_request_id"],
            ["access_requests.uid"],
        ),
        sa.ForeignKeyConstraint(
            ["target"],
            ["vault_targets.id"],
        ),
        sa.PrimaryKeyConstraint("id"),
        sa.UniqueConstraint("access_request_id", "sequence", name="attempts_sequence"),
    )
    op.create_index("attempts_closed", "attempts", ["closed_at"], unique=False)
    op.create_index("attempts_state", "attempts", ["state"], unique=False)
    op.create_index("attempts_tenant", "attempts", ["tenant", "state"], unique=False)
    op.create_index("attempts_work", "attempts", ["priority", "due_at", "tenant"], unique=False)


def _cleanup_roles() -> None:
    op.create_table(
        "cleanup_roles",
        sa.Column("name", sa.String(), nullable=False),
        sa.Column("target", sa.Integer(), nullable=False),
        sa.Column("mount", sa.String(), nullable=False),
        sa.Column("db_name", sa.String(), nullable=False),
        sa.Column("revocation_statements", sa.JSON(), nullable=False),
        sa.Column("drop_by", sa.String(), nullable=False),
        sa.Column("state", sa.String(), nullable=False),
        sa.Column("error", sa.String(), nullable=False),
        sa.ForeignKeyConstraint(
            ["target"],
            ["vault_targets.id"],
        ),
        sa.PrimaryKeyConstraint("name", "target"),
    )


def _decisions() -> None:
    op.create_table(
        "decisions",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("access_request_id", sa.String(), nullable=False),
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
            ["access_request_id"],
            ["access_requests.uid"],
        ),
        sa.PrimaryKeyConstraint("id"),
    )
    op.create_index("decisions_request", "decisions", ["access_request_id", "id"], unique=False)


def _roles() -> None:
    op.create_table(
        "db_roles",
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
        sa.Column("deleted", sa.Boolean(), nullable=False),
        sa.Column("words", sa.JSON(), nullable=False),
        sa.Column("approvals", sa.Integer(), nullable=False),
        sa.Column("approvers", sa.JSON(), nullable=False),
        sa.Column("self_approval", sa.Boolean(), nullable=False),
        sa.Column("configured", sa.Boolean(), nullable=False),
        sa.Column("allow_from", sa.JSON(), nullable=False),
        sa.Column("allow_subjects_from", sa.JSON(), nullable=False),
        sa.Column("not_allowed", sa.String(), nullable=False),
        sa.Column("pause_number", sa.Integer(), nullable=False),
        sa.Column("paused_at", sa.Float(), nullable=True),
        sa.Column("paused_by", sa.String(), nullable=False),
        sa.Column("pause_shown", sa.Boolean(), nullable=False),
        sa.ForeignKeyConstraint(
            ["target"],
            ["vault_targets.id"],
        ),
        sa.PrimaryKeyConstraint("id"),
        sa.UniqueConstraint("cluster", "cluster_uid", "namespace", "name", name="db_roles_key"),
    )


def _recoveries() -> None:
    op.create_table(
        "recoveries",
        sa.Column("sequence", sa.Integer(), nullable=False),
        sa.Column("attempt", sa.String(), nullable=False),
        sa.Column("cleanup_role", sa.String(), nullable=False),
        sa.Column("accessor", sa.String(), nullable=False),
        sa.Column("second", sa.Boolean(), nullable=False),
        sa.Column("lease_id", sa.String(), nullable=False),
        sa.Column("done_at", sa.Float(), nullable=True),
        sa.ForeignKeyConstraint(
            ["attempt"],
            ["attempts.id"],
        ),
        sa.PrimaryKeyConstraint("sequence"),
        sqlite_autoincrement=True,
    )
    op.create_index("recoveries_attempt", "recoveries", ["attempt", "sequence"], unique=False)


def _reassessments() -> None:
    op.create_table(
        "reassessments",
        sa.Column("db_role", sa.Integer(), nullable=False),
        sa.Column("since", sa.Float(), nullable=False),
        sa.Column("after", sa.String(), nullable=False),
        sa.Column("again", sa.Boolean(), nullable=False),
        sa.Column("leases", sa.Boolean(), nullable=False),
        sa.ForeignKeyConstraint(
            ["db_role"],
            ["db_roles.id"],
        ),
        sa.PrimaryKeyConstraint("db_role"),
    )
