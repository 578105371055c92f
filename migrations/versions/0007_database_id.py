"""Draw an id of this database's own: two that share a Redis must not hear each other's rings."""

import sqlalchemy as sa
from alembic import op

from shared.migration_state import VERSION_TABLE

revision = "0007"
down_revision = "0006"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Add it to the one row that every process can read already; where that row is made anew, it draws anew.

    Older releases name the columns that they read and write there.
    """
    op.add_column(
        VERSION_TABLE,
        sa.Column(
            "database_id",
            sa.Uuid(),
            nullable=False,
            server_default=sa.text("gen_random_uuid()"),
            comment="Drawn once; with where the database lies it names its keys in Redis.",
        ),
    )


def downgrade() -> None:
    """Forget it: an earlier release has one set of names for all databases."""
    op.drop_column(VERSION_TABLE, "database_id")
