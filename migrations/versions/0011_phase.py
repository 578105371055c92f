"""Keep the phase of the cutover in a row, and answer which collections are in a project by a view on it."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects.postgresql import JSONB

from shared.downgrades import refuse_to_lose
from shared.phase.view import COMMENT, FUNCTION, VIEW, function, view
from shared.place import PLACE, Place

revision = "0011"
down_revision = "0010"
branch_labels = None
depends_on = None

PHASES = "('legacy_only', 'outbox', 'verified', 'shadow_reads', 'reads_moved')"
# A plan that was made while a table had hardly any pages reads all of it, however long it has grown.
KEEPS_ITS_PAGES = ("outbox_events", "outbox_dead_letters")


def now(name: str) -> sa.Column[object]:
    return sa.Column(
        name, sa.DateTime(timezone=True), nullable=False, server_default=sa.text("clock_timestamp()")
    )


def one_row() -> sa.Column[bool]:
    return sa.Column(
        "singleton",
        sa.Boolean(),
        primary_key=True,
        server_default=sa.text("true"),
        comment="There is one row.",
    )


def counted(name: str, comment: str | None = None) -> sa.Column[int]:
    return sa.Column(name, sa.BigInteger(), nullable=False, server_default=sa.text("0"), comment=comment)


def upgrade() -> None:
    """Add the tables and the view; reads come from `collections` until an operator turns the row."""
    op.create_table(
        "migration_phase",
        one_row(),
        sa.Column(
            "phase",
            sa.String(),
            nullable=False,
            comment="legacy_only | outbox | verified | shadow_reads | reads_moved",
        ),
        counted("epoch", "One more with each turn."),
        now("since"),
        sa.Column("actor", sa.Text(), nullable=False, comment="Who turned it last; not proved."),
        sa.Column(
            "falls_back",
            sa.Boolean(),
            nullable=False,
            server_default=sa.text("true"),
            comment="Whether moved reads go back by themselves when a comparison finds a mismatch.",
        ),
        sa.CheckConstraint("singleton", name="migration_phase_one_row"),
        sa.CheckConstraint(f"phase IN {PHASES}", name="migration_phase_known_phase"),
        comment="Where reads come from: visible_collections asks this row in each statement.",
    )
    op.execute("INSERT INTO migration_phase (phase, actor) VALUES ('legacy_only', 'alembic upgrade head')")
    op.create_table(
        "phase_turns",
        sa.Column(
            "epoch",
            sa.BigInteger(),
            primary_key=True,
            autoincrement=False,
            comment="The one that it began.",
        ),
        now("turned_at"),
        sa.Column("from_phase", sa.String(), nullable=False),
        sa.Column("to_phase", sa.String(), nullable=False),
        sa.Column("kind", sa.String(), nullable=False, comment="advance | back | fall_back"),
        sa.Column("actor", sa.Text(), nullable=False, comment="Who turned it; not proved."),
        sa.Column("reason", sa.Text(), comment="Why; there is one wherever it was forced."),
        sa.Column("forced", sa.Boolean(), nullable=False, comment="Although gates were not met."),
        sa.Column(
            "gates",
            JSONB(),
            nullable=False,
            comment="The gates as they were in the transaction of the turn.",
        ),
        sa.Column(
            "losses", JSONB(), comment="What going back would lose, as last counted; NULL: not counted."
        ),
        sa.CheckConstraint("kind IN ('advance', 'back', 'fall_back')", name="phase_turns_known_kind"),
        sa.CheckConstraint("NOT forced OR reason IS NOT NULL", name="phase_turns_forced_for_a_reason"),
        sa.CheckConstraint("length(actor) BETWEEN 1 AND 200", name="phase_turns_named_actor"),
        comment="The turns of migration_phase, each written in its own transaction.",
    )
    op.create_table(
        "shadow_counts",
        sa.Column(
            "epoch", sa.BigInteger(), primary_key=True, autoincrement=False, comment="migration_phase.epoch"
        ),
        sa.Column("minute", sa.DateTime(timezone=True), primary_key=True),
        counted("matched", "Lists without a difference."),
        counted("mismatched", "Lists with a mismatch."),
        counted("pending", "Differ; events wait."),
        counted("lettered", "Differ; an open letter is why."),
        counted("dropped", "Sampled, and not compared: busy."),
        counted("failed", "Sampled; came to no end."),
        counted("collections", "Compared in all lists."),
        sa.Column(
            "legacy_seconds",
            sa.Float(),
            nullable=False,
            server_default=sa.text("0"),
            comment="The reads of collections.",
        ),
        sa.Column(
            "target_seconds",
            sa.Float(),
            nullable=False,
            server_default=sa.text("0"),
            comment="Of project_collections.",
        ),
        sa.Column(
            "last_at",
            sa.DateTime(timezone=True),
            comment="When the last of them was compared; NULL: none was.",
        ),
        comment="Lists that were compared from both sides, by minute; removed after 30 days.",
    )
    op.create_index("shadow_counts_by_minute", "shadow_counts", ["minute"])
    op.create_table(
        "shadow_findings",
        sa.Column(
            "project_id", sa.String(), primary_key=True, comment="The project whose list was compared."
        ),
        sa.Column("collection_id", sa.String(), primary_key=True),
        sa.Column("kind", sa.String(), nullable=False, comment="missing | mismatched | orphaned"),
        sa.Column(
            "epoch", sa.BigInteger(), nullable=False, comment="migration_phase.epoch when it was found last."
        ),
        now("found_at"),
        sa.Column("found_times", sa.BigInteger(), nullable=False, server_default=sa.text("1")),
        sa.CheckConstraint(
            "kind IN ('missing', 'mismatched', 'orphaned')", name="shadow_findings_known_kind"
        ),
        comment="Mismatches that comparisons of lists found: neither an event nor a letter explains them.",
    )
    op.create_index("shadow_findings_by_time", "shadow_findings", ["found_at"])
    op.create_table(
        "going_back_losses",
        one_row(),
        now("counted_at"),
        sa.Column("took_seconds", sa.Float(), nullable=False, comment="What the count took."),
        *(
            sa.Column(name, sa.BigInteger(), nullable=False, comment=comment)
            for name, comment in (
                ("further_links", "Rows that link to another than the home."),
                ("tags", "Rows with tags."),
                ("mappings", "Rows with questions or hypotheses mapped."),
                ("contexts", "Rows whose context is not the description."),
                ("without_home", "Active and linked, without a home row."),
            )
        ),
        sa.CheckConstraint("singleton", name="going_back_losses_one_row"),
        comment="What only project_collections holds; counted by workers.",
    )
    for table in KEEPS_ITS_PAGES:
        op.execute(f"ALTER TABLE {table} SET (vacuum_truncate = off)")
    place = Place(*op.get_bind().execute(sa.text(PLACE)).one())
    for statement in (function(place), view(place)):
        op.get_bind().exec_driver_sql(statement)
    op.execute(f"REVOKE ALL ON FUNCTION {FUNCTION}(text) FROM PUBLIC")
    op.execute(f"COMMENT ON VIEW {VIEW} IS '{COMMENT}'")


def downgrade() -> None:
    """Drop them, unless reads are moved. Who turned the phase, and what was compared, are forgotten."""
    refuse_to_lose(
        op.get_bind(),
        "migration_phase",
        found={
            "SELECT count(*) FROM migration_phase WHERE phase = 'reads_moved'": (
                "row says that reads are moved: run `python -m worker.phase back` first."
            )
        },
    )
    op.execute(f"DROP VIEW {VIEW}")
    op.execute(f"DROP FUNCTION {FUNCTION}(text)")
    for table in KEEPS_ITS_PAGES:
        op.execute(f"ALTER TABLE {table} RESET (vacuum_truncate)")
    for table in ("going_back_losses", "shadow_findings", "shadow_counts", "phase_turns", "migration_phase"):
        op.drop_table(table)
