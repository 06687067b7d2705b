"""Why a credential ended, how long a replaced one is kept, and since when a request is gone."""

from __future__ import annotations

import time

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"


def upgrade() -> None:
    """Add the columns; what has ended already is kept for as long as what ends now."""
    op.add_column("attempts", sa.Column("why", sa.String(), nullable=False, server_default=""))
    op.add_column("attempts", sa.Column("overlap_ends_at", sa.Float(), nullable=True))
    op.add_column("requests", sa.Column("gone_at", sa.Float(), nullable=True))
    op.create_index("attempts_closed", "attempts", ["closed_at"], unique=False)
    op.create_index("requests_gone", "requests", ["gone_at"], unique=False)
    op.execute("UPDATE attempts SET overlap_ends_at = work_at WHERE state = 'old'")
    gone = sa.text(
        "UPDATE requests SET gone_at = :now WHERE approval = 'withdrawn' OR (origin = 'grpc' AND approval IN ('denied', 'expired'))"
    )
    op.get_bind().execute(gone, {"now": time.time()})
