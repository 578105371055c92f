"""Create the outbox, the version guard and the dead letters.

On an empty database, for development, the legacy tables are created first. Where they exist they
are left as they are, to the byte.
"""

from pathlib import Path

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects.postgresql import JSONB

from shared.downgrades import refuse_to_lose
from shared.migration_state import MigrationRefusedError

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None

LEGACY_SCHEMA = Path(__file__).parent.parent / "legacy_schema.sql"
NEEDED = (
    "users",
    "projects",
    "project_collaborators",
    "collections",
    "article_collections",
    "activity_logs",
    "project_collections",
)


def missing_legacy_tables() -> list[str]:
    """Name the legacy tables that this system uses and the database does not have."""
    found = op.get_bind().execute(
        sa.text("SELECT name FROM unnest(CAST(:names AS text[])) AS name WHERE to_regclass(name) IS NULL"),
        {"names": list(NEEDED)},
    )
    return list(found.scalars())


def create_legacy_schema() -> None:
    """Run the statements of production's own dump, less the settings of its session."""
    lines = LEGACY_SCHEMA.read_text(encoding="utf-8").splitlines()
    code = "\n".join(line for line in lines if not line.startswith("--"))
    for statement in code.split(";\n"):
        words = statement.split()
        if words and words[0] in {"CREATE", "ALTER"}:
            op.get_bind().exec_driver_sql(statement)


def upgrade() -> None:
    """Create our tables; on an empty database the legacy ones as well."""
    missing = missing_legacy_tables()
    if set(missing) == set(NEEDED):
        create_legacy_schema()
    elif missing:
        msg = (
            f"The database has some of the legacy tables but not: {', '.join(missing)}. Nothing was changed."
        )
        raise MigrationRefusedError(msg)

    op.create_table(
        "outbox_events",
        sa.Column(
            "id",
            sa.BigInteger(),
            sa.Identity(),
            nullable=False,
            comment="The version: drawn under the row's lock.",
        ),
        sa.Column("aggregate_id", sa.String(), nullable=False, comment="collections.collection_id"),
        sa.Column(
            "event_type",
            sa.String(),
            nullable=False,
            comment="collection.created | .updated | .deleted",
        ),
        sa.Column("source", sa.String(), nullable=False, comment="api | repair | backfill"),
        sa.Column("payload", JSONB(), nullable=False, comment="The collection's full projected state."),
        sa.Column(
            "created_at",
            sa.DateTime(timezone=True),
            server_default=sa.text("clock_timestamp()"),
            nullable=False,
        ),
        sa.Column(
            "lane",
            sa.SmallInteger(),
            sa.Computed("CASE source WHEN 'api' THEN 0 WHEN 'repair' THEN 1 ELSE 2 END", persisted=True),
            nullable=False,
            comment="Claimed in this order: 0 live, 1 repair, 2 backfill.",
        ),
        sa.PrimaryKeyConstraint("id"),
        comment=(
            "Changes of collections that project_collections does not show yet. Applied events are deleted."
        ),
    )
    op.create_index("outbox_events_claim_order", "outbox_events", ["lane", "id"])

    op.create_table(
        "applied_versions",
        sa.Column("collection_id", sa.String(), nullable=False),
        sa.Column(
            "version",
            sa.BigInteger(),
            nullable=False,
            comment="outbox_events.id of the last event applied.",
        ),
        sa.Column("project_id", sa.String(), nullable=False, comment="The home project that version named."),
        sa.Column(
            "previous_project_id",
            sa.String(),
            comment="The home it moved away from; NULL when it did not move.",
        ),
        sa.Column(
            "is_deleted",
            sa.Boolean(),
            nullable=False,
            comment="A tombstone: nothing older brings it back.",
        ),
        sa.PrimaryKeyConstraint("collection_id"),
        comment="The version guard: an event applies only when its version is higher.",
    )

    op.create_table(
        "outbox_dead_letters",
        sa.Column("id", sa.BigInteger(), autoincrement=False, nullable=False, comment="The event's id."),
        sa.Column("aggregate_id", sa.String(), nullable=False),
        sa.Column("event_type", sa.String(), nullable=False),
        sa.Column("source", sa.String(), nullable=False),
        sa.Column("payload", JSONB(), nullable=False),
        sa.Column(
            "created_at",
            sa.DateTime(timezone=True),
            nullable=False,
            comment="When the event was appended.",
        ),
        sa.Column(
            "died_at",
            sa.DateTime(timezone=True),
            server_default=sa.text("clock_timestamp()"),
            nullable=False,
        ),
        sa.Column(
            "sqlstate",
            sa.String(),
            comment="PostgreSQL's error code; NULL when the event was malformed.",
        ),
        sa.Column("error", sa.Text(), nullable=False, comment="Why it could not be applied; bounded."),
        sa.PrimaryKeyConstraint("id"),
        comment="Events that can never be applied, set aside so that the others go on.",
    )


def downgrade() -> None:
    """Drop our tables, unless events wait or letters are left. Legacy tables stay, also those made here."""
    refuse_to_lose(
        op.get_bind(),
        "outbox_events",
        "applied_versions",
        "outbox_dead_letters",
        found={
            "SELECT count(*) FROM outbox_events": (
                "pending events would be lost: let workers apply them, or roll phase 1 back, which discards"
                " them (migrations/phase1_backfill_project_collections.py --rollback)."
            ),
            "SELECT count(*) FROM outbox_dead_letters": (
                "dead letters would be lost: replay or discard them."
            ),
        },
    )
    op.drop_table("outbox_dead_letters")
    op.drop_table("applied_versions")
    op.drop_table("outbox_events")
