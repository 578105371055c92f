"""Let a capture in the database append and count, and give what it appends the lane of live writes."""

import sqlalchemy as sa
from alembic import op

from shared.downgrades import refuse_to_lose

revision = "0010"
down_revision = "0009"
branch_labels = None
depends_on = None

# Every lane of the other sources stays as it was, so releases from before claim what is captured like users'
# writes.
WITH_CAPTURE = """CASE source
    WHEN 'api' THEN 1 - schema_version
    WHEN 'capture' THEN 1 - schema_version
    WHEN 'repair' THEN 2 * schema_version - 1
    ELSE 2 * schema_version
END"""
WITHOUT_CAPTURE = """CASE source
    WHEN 'api' THEN 1 - schema_version
    WHEN 'repair' THEN 2 * schema_version - 1
    ELSE 2 * schema_version
END"""
TRIGGERS = """
    SELECT count(*) FROM pg_trigger
    WHERE NOT tgisinternal AND starts_with(tgname::text, 'collection_sync_capture_')
"""


def replace_lane(expression: str) -> None:
    """Make the column anew, and the index that orders claims by it: this rewrites the pending events."""
    op.drop_column("outbox_events", "lane")  # and its index
    op.add_column(
        "outbox_events",
        sa.Column(
            "lane",
            sa.SmallInteger(),
            sa.Computed(expression, persisted=True),
            nullable=False,
            comment="Claimed in this order: 0 live, 1 repair, 2 backfill; of version v 1-v, 2v-1 and 2v.",
        ),
    )
    op.create_index("outbox_events_claim_order", "outbox_events", ["lane", "id"])


def note_sources(sources: str, before: str) -> None:
    op.alter_column(
        "outbox_events", "source", existing_type=sa.String(), comment=sources, existing_comment=before
    )


def upgrade() -> None:
    """Add the tables; nothing is captured until an operator installs it, and no legacy table is touched.

    Pending events are rewritten under a lock that writers wait for: run it while few are pending.
    """
    op.create_table(
        "capture_settings",
        sa.Column(
            "singleton",
            sa.Boolean(),
            primary_key=True,
            server_default=sa.text("true"),
            comment="There is one row.",
        ),
        sa.Column("mode", sa.String(), nullable=False, comment="count | append | refuse"),
        sa.Column(
            "definition",
            sa.String(),
            nullable=False,
            comment="Digest of the functions and triggers in place.",
        ),
        sa.Column(
            "installed_by",
            sa.Text(),
            nullable=False,
            comment="The role that installed it, or changed its mode.",
        ),
        sa.Column(
            "installed_at",
            sa.DateTime(timezone=True),
            nullable=False,
            server_default=sa.text("clock_timestamp()"),
        ),
        sa.CheckConstraint("singleton", name="capture_settings_one_row"),
        sa.CheckConstraint("mode IN ('count', 'append', 'refuse')", name="capture_settings_known_mode"),
        comment="How writes of collections that append no event are captured. No row: they are not.",
    )
    op.create_table(
        "captured_writes",
        sa.Column("id", sa.Uuid(), primary_key=True, server_default=sa.text("gen_random_uuid()")),
        sa.Column("collection_id", sa.String(), comment="NULL: of all of them, by TRUNCATE."),
        sa.Column("role", sa.Text(), nullable=False, comment="Who had logged in: session_user."),
        sa.Column("application", sa.Text(), nullable=False, comment="Its application_name."),
        sa.Column("operation", sa.String(), nullable=False, comment="insert | update | delete | truncate"),
        sa.Column(
            "captured_at",
            sa.DateTime(timezone=True),
            nullable=False,
            server_default=sa.text("clock_timestamp()"),
        ),
        comment="Captured, and not counted by a worker yet. Writers only insert, so none waits for another.",
    )
    op.create_table(
        "captured_counts",
        sa.Column("role", sa.Text(), primary_key=True),
        sa.Column("application", sa.Text(), primary_key=True),
        sa.Column("operation", sa.String(), primary_key=True),
        sa.Column("minute", sa.DateTime(timezone=True), primary_key=True),
        sa.Column("writes", sa.BigInteger(), nullable=False, comment="Captured in that minute, and counted."),
        sa.Column(
            "last_at",
            sa.DateTime(timezone=True),
            nullable=False,
            comment="When the last of them was captured.",
        ),
        sa.CheckConstraint("writes > 0", name="captured_counts_of_something"),
        comment="Captured writes by who made them, and when; removed after 30 days.",
    )
    op.create_index("captured_counts_by_minute", "captured_counts", ["minute"])
    op.create_table(
        "captured_writers",
        sa.Column("collection_id", sa.String(), primary_key=True),
        sa.Column("role", sa.Text(), nullable=False),
        sa.Column("application", sa.Text(), nullable=False),
        sa.Column("operation", sa.String(), nullable=False),
        sa.Column("captured_at", sa.DateTime(timezone=True), nullable=False),
        comment="Whose write of a collection was captured last, for audits to name; removed after 30 days.",
    )
    op.create_index("captured_writers_by_time", "captured_writers", ["captured_at"])
    replace_lane(WITH_CAPTURE)
    note_sources("api | capture | repair | backfill", "api | repair | backfill")


def downgrade() -> None:
    """Drop the tables, unless the capture is installed. The counts are forgotten."""
    refuse_to_lose(
        op.get_bind(),
        "capture_settings",
        "captured_writes",
        "captured_counts",
        "captured_writers",
        found={
            TRIGGERS: "triggers capture writes of `collections`: run `python -m worker.capture remove` first."
        },
    )
    note_sources("api | repair | backfill", "api | capture | repair | backfill")
    replace_lane(WITHOUT_CAPTURE)
    op.drop_table("captured_writers")
    op.drop_table("captured_counts")
    op.drop_table("captured_writes")
    op.drop_table("capture_settings")
