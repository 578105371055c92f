"""Let an event say which version of the payload it has, and give each version lanes of its own."""

import sqlalchemy as sa
from alembic import op

from shared.migration_state import MigrationRefusedError

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None

# Version 1 keeps its lanes, so workers that know no other, those of the release before included, go on as
# before and never see a later one. See docs/versions.md.
BY_SOURCE_AND_VERSION = """CASE source
    WHEN 'api' THEN 1 - schema_version
    WHEN 'repair' THEN 2 * schema_version - 1
    ELSE 2 * schema_version
END"""
BY_SOURCE = "CASE source WHEN 'api' THEN 0 WHEN 'repair' THEN 1 ELSE 2 END"


def replace_lane(expression: str, comment: str) -> None:
    """Make the column anew, and the index that orders claims by it: this rewrites the pending events."""
    op.drop_column("outbox_events", "lane")  # and its index
    op.add_column(
        "outbox_events",
        sa.Column(
            "lane",
            sa.SmallInteger(),
            sa.Computed(expression, persisted=True),
            nullable=False,
            comment=comment,
        ),
    )
    op.create_index("outbox_events_claim_order", "outbox_events", ["lane", "id"])


def upgrade() -> None:
    """Add the version, which is 1 where a writer names no other; the lane then depends on it.

    Pending events are rewritten under a lock that writers wait for: run it while few are pending.
    """
    # Not a NOT NULL: workers of the version before copy the table's columns, and those constraints with
    # them, for their audit's canary.
    op.add_column(
        "outbox_events",
        sa.Column(
            "schema_version",
            sa.SmallInteger(),
            server_default=sa.text("1"),
            comment="Of the payload and its meaning; workers leave alone what they do not know.",
        ),
    )
    op.create_check_constraint(
        "outbox_events_schema_version_counted",
        "outbox_events",
        "schema_version IS NOT NULL AND schema_version >= 1",
    )
    replace_lane(
        BY_SOURCE_AND_VERSION,
        "Claimed in this order: 0 live, 1 repair, 2 backfill; of version v 1-v, 2v-1 and 2v.",
    )


def downgrade() -> None:
    """Forget the versions; refused while an event of a later one waits, which workers would mistake."""
    later = op.get_bind().execute(sa.text("SELECT count(*) FROM outbox_events WHERE schema_version > 1"))
    if waiting := later.scalar_one():
        msg = (
            f"{waiting} pending events are of a later version than 1: have a worker that knows it apply them."
            " Nothing was changed."
        )
        raise MigrationRefusedError(msg)
    replace_lane(BY_SOURCE, "Claimed in this order: 0 live, 1 repair, 2 backfill.")
    op.drop_column("outbox_events", "schema_version")  # and its constraint
