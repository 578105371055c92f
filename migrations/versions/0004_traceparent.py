"""Let an event carry the trace of the request that wrote it, and its dead letter keep it."""

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None

SHAPE = "traceparent ~ '^00-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2}$'"


def upgrade() -> None:
    """Add the column to both tables; no row is read or rewritten, however many events are pending.

    Each table is locked for two changes of the catalogue. The constraints are not validated: that would
    read the whole table under the lock, to find the NULL that every older row has. They hold for every
    row that is written from here on, so also for those of an API of the version before, which leaves the
    column alone.
    """
    for table in ("outbox_events", "outbox_dead_letters"):
        op.add_column(
            table,
            sa.Column(
                "traceparent",
                sa.Text(),
                comment="The trace that the event was written in, as W3C Trace Context writes it.",
            ),
        )
        op.create_check_constraint(f"{table}_traceparent_of_w3c", table, SHAPE, postgresql_not_valid=True)


def downgrade() -> None:
    """Forget which trace each event belongs to; nothing that is applied depends on it."""
    for table in ("outbox_dead_letters", "outbox_events"):
        op.drop_column(table, "traceparent")  # and its constraint
