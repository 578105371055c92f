"""Create the tables of backfills and audits, and remember which target rows were there before us."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects.postgresql import JSONB

from shared.downgrades import refuse_to_lose

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None

# What a rollback of phase 1 would remove: rows that we made, with nothing in what others fill.
COUNT_OURS = r"""
    SELECT count(*) FROM applied_versions AS guard
    JOIN project_collections AS target
        ON target.collection_id = guard.collection_id AND target.project_id = guard.project_id
    WHERE NOT (guard.is_deleted OR guard.found_row)
        AND concat(target.tags, target.linked_project_question_ids, target.linked_project_hypothesis_ids)
            ~ '^(\s|\[\s*\]|\{\s*\}|null)*$'
"""
COUNT_BACKFILLS = "SELECT count(*) FROM backfill_runs WHERE status IN ('running', 'paused')"
COUNT_AUDITS = """
    SELECT count(*) FROM audit_runs
    WHERE status = 'running' AND heartbeat_at > clock_timestamp() - interval '10 seconds'
"""


def upgrade() -> None:
    """Add what backfill, audit and rollback need; no row is rewritten."""
    op.create_table(
        "audit_runs",
        sa.Column("id", sa.BigInteger(), sa.Identity(), nullable=False),
        sa.Column("status", sa.String(), nullable=False, comment="requested | running | finished | failed"),
        sa.Column("verdict", sa.String(), comment="in_sync | pending | drift | repaired | incomplete"),
        sa.Column(
            "requested_by", sa.String(), nullable=False, comment="command | schedule | backfill | admin"
        ),
        sa.Column("project_id", sa.String(), comment="Only this home project; NULL: all."),
        sa.Column("repair", sa.Boolean(), nullable=False, comment="Append events for what was found."),
        sa.Column("chunks_planned", sa.BigInteger(), server_default=sa.text("0"), nullable=False),
        sa.Column("chunks_done", sa.BigInteger(), server_default=sa.text("0"), nullable=False),
        sa.Column(
            "planned",
            sa.BigInteger(),
            server_default=sa.text("0"),
            nullable=False,
            comment="Pairs to compare.",
        ),
        sa.Column(
            "compared",
            sa.BigInteger(),
            server_default=sa.text("0"),
            nullable=False,
            comment="Pairs compared.",
        ),
        sa.Column("active_collections", sa.BigInteger(), server_default=sa.text("0"), nullable=False),
        sa.Column("home_rows", sa.BigInteger(), server_default=sa.text("0"), nullable=False),
        sa.Column("missing", sa.BigInteger(), server_default=sa.text("0"), nullable=False),
        sa.Column("mismatched", sa.BigInteger(), server_default=sa.text("0"), nullable=False),
        sa.Column("orphaned", sa.BigInteger(), server_default=sa.text("0"), nullable=False),
        sa.Column(
            "pending",
            sa.BigInteger(),
            server_default=sa.text("0"),
            nullable=False,
            comment="Differ; their event waits.",
        ),
        sa.Column(
            "repaired",
            sa.BigInteger(),
            server_default=sa.text("0"),
            nullable=False,
            comment="Verified afterwards.",
        ),
        sa.Column("canary_found", sa.Boolean(), comment="The pass found every planted difference."),
        sa.Column("error", sa.Text(), comment="Why it failed or is incomplete."),
        sa.Column(
            "requested_at",
            sa.DateTime(timezone=True),
            server_default=sa.text("clock_timestamp()"),
            nullable=False,
        ),
        sa.Column("started_at", sa.DateTime(timezone=True)),
        sa.Column("heartbeat_at", sa.DateTime(timezone=True)),
        sa.Column("finished_at", sa.DateTime(timezone=True)),
        sa.CheckConstraint(
            "status IN ('requested', 'running', 'finished', 'failed')", name="audit_runs_known_status"
        ),
        sa.CheckConstraint(
            "verdict IN ('in_sync', 'pending', 'drift', 'repaired', 'incomplete')",
            name="audit_runs_known_verdict",
        ),
        sa.PrimaryKeyConstraint("id"),
        comment="Audits. A verdict other than incomplete needs every planned pair compared, and the canary.",
    )
    op.create_table(
        "backfill_runs",
        sa.Column("id", sa.BigInteger(), sa.Identity(), nullable=False),
        sa.Column("status", sa.String(), nullable=False, comment="running | paused | cancelled | finished"),
        sa.Column(
            "in_worker", sa.Boolean(), nullable=False, comment="Workers drive it; otherwise a command does."
        ),
        sa.Column("project_id", sa.String(), comment="Only this home project; NULL: all."),
        sa.Column("rate", sa.Integer(), comment="At most this many rows a second; NULL: as fast as may be."),
        sa.Column(
            "max_pending",
            sa.Integer(),
            nullable=False,
            comment="Throttled at so many pending backfill events.",
        ),
        sa.Column(
            "chunk_size", sa.Integer(), nullable=False, comment="Rows of the next chunk; adapts to its time."
        ),
        sa.Column("cursor_key", sa.String(), comment="The last collection_id processed; NULL: none yet."),
        sa.Column(
            "end_key", sa.String(), comment="The highest collection_id at the start; NULL: there was none."
        ),
        sa.Column(
            "planned", sa.BigInteger(), nullable=False, comment="Rows of `collections` counted at the start."
        ),
        sa.Column(
            "processed",
            sa.BigInteger(),
            server_default=sa.text("0"),
            nullable=False,
            comment="Rows looked at.",
        ),
        sa.Column(
            "enqueued",
            sa.BigInteger(),
            server_default=sa.text("0"),
            nullable=False,
            comment="Events appended.",
        ),
        sa.Column(
            "skipped",
            sa.BigInteger(),
            server_default=sa.text("0"),
            nullable=False,
            comment="Nothing to do for them.",
        ),
        sa.Column(
            "missing",
            sa.BigInteger(),
            server_default=sa.text("0"),
            nullable=False,
            comment="Enqueued: no home row.",
        ),
        sa.Column(
            "mismatched",
            sa.BigInteger(),
            server_default=sa.text("0"),
            nullable=False,
            comment="Enqueued: differed.",
        ),
        sa.Column(
            "orphaned",
            sa.BigInteger(),
            server_default=sa.text("0"),
            nullable=False,
            comment="Enqueued: deleted.",
        ),
        sa.Column("last_event_id", sa.BigInteger(), comment="The highest outbox_events.id of this run."),
        sa.Column("throttled_by", sa.Text(), comment="Why it waits at the moment; NULL: it does not."),
        sa.Column("driver", sa.String(), comment="host:pid of the process that drives it or drove it last."),
        sa.Column(
            "driver_token", sa.Uuid(), comment="Drawn by whoever takes the run over; only its holder goes on."
        ),
        sa.Column(
            "started_at",
            sa.DateTime(timezone=True),
            server_default=sa.text("clock_timestamp()"),
            nullable=False,
        ),
        sa.Column(
            "heartbeat_at",
            sa.DateTime(timezone=True),
            server_default=sa.text("clock_timestamp()"),
            nullable=False,
        ),
        sa.Column("finished_at", sa.DateTime(timezone=True)),
        sa.CheckConstraint(
            "status IN ('running', 'paused', 'cancelled', 'finished')", name="backfill_runs_known_status"
        ),
        sa.CheckConstraint(
            "enqueued = missing + mismatched + orphaned", name="backfill_runs_every_event_has_a_kind"
        ),
        sa.CheckConstraint("processed = enqueued + skipped", name="backfill_runs_every_row_accounted_for"),
        sa.PrimaryKeyConstraint("id"),
        comment="Backfills. The cursor moves in the transaction that appends its chunk's events.",
    )
    op.create_index(
        "backfill_runs_one_at_a_time",
        "backfill_runs",
        [sa.literal_column("(true)")],
        unique=True,
        postgresql_where=sa.text("status IN ('running', 'paused')"),
    )
    op.create_table(
        "audit_findings",
        sa.Column("audit_run_id", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("collection_id", sa.String(), nullable=False),
        sa.Column("project_id", sa.String(), nullable=False, comment="The home project."),
        sa.Column("kind", sa.String(), nullable=False, comment="missing | mismatched | orphaned"),
        sa.Column(
            "legacy", JSONB(), comment="The projection of the legacy row; NULL: it should have no home row."
        ),
        sa.Column("target", JSONB(), comment="The home row as it was found; NULL: there was none."),
        sa.Column(
            "found_at",
            sa.DateTime(timezone=True),
            server_default=sa.text("clock_timestamp()"),
            nullable=False,
        ),
        sa.Column("repair_event_id", sa.BigInteger(), comment="The event appended for it; NULL: none."),
        sa.Column("outcome", sa.String(), comment="repaired | still_differs | pending; NULL: not repaired."),
        sa.CheckConstraint("kind IN ('missing', 'mismatched', 'orphaned')", name="audit_findings_known_kind"),
        sa.CheckConstraint(
            "outcome IN ('repaired', 'still_differs', 'pending')", name="audit_findings_known_outcome"
        ),
        sa.ForeignKeyConstraint(["audit_run_id"], ["audit_runs.id"], ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("audit_run_id", "collection_id"),
        comment="What audits found: all that they repaired, and the first of what they only reported.",
    )
    op.add_column(
        "applied_versions",
        sa.Column(
            "found_row",
            sa.Boolean(),
            server_default=sa.text("false"),
            nullable=False,
            comment="The home row was there before our first event for it: a rollback keeps it.",
        ),
    )
    op.create_index("outbox_dead_letters_of_aggregate", "outbox_dead_letters", ["aggregate_id", "id"])
    op.create_index("outbox_events_of_aggregate", "outbox_events", ["aggregate_id", "id"])


def downgrade() -> None:
    """Forget all backfills and audits, and which rows are ours, unless an operator needs that yet."""
    refuse_to_lose(
        op.get_bind(),
        "backfill_runs",
        "audit_runs",
        "applied_versions",
        found={
            COUNT_BACKFILLS: "backfills are not finished: python -m worker.backfill --cancel.",
            COUNT_AUDITS: "audits are under way: stop the workers.",
            COUNT_OURS: (
                "rows of project_collections are known to be ours, which would be forgotten: roll phase 1"
                " back (migrations/phase1_backfill_project_collections.py --rollback). Where they are to stay"
                " for good, DELETE FROM applied_versions."
            ),
        },
    )
    op.drop_index("outbox_events_of_aggregate", table_name="outbox_events")
    op.drop_index("outbox_dead_letters_of_aggregate", table_name="outbox_dead_letters")
    op.drop_column("applied_versions", "found_row")
    op.drop_table("audit_findings")
    op.drop_index(
        "backfill_runs_one_at_a_time",
        table_name="backfill_runs",
        postgresql_where=sa.text("status IN ('running', 'paused')"),
    )
    op.drop_table("backfill_runs")
    op.drop_table("audit_runs")
