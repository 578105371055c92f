"""Let an audit be held by the token that its process drew, as a backfill is."""

import sqlalchemy as sa
from alembic import op

revision = "0008"
down_revision = "0007"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Add the column; no row is rewritten.

    Older releases leave it alone. They hold an audit by its start, which a process that takes the run writes
    anew in every release.
    """
    op.add_column(
        "audit_runs",
        sa.Column(
            "driver_token",
            sa.Uuid(),
            comment="Drawn by the process that takes the run; only its holder writes.",
        ),
    )


def downgrade() -> None:
    """Drop it. What a worker of this release has under way fails; another process begins it anew."""
    op.drop_column("audit_runs", "driver_token")
