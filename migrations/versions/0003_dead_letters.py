"""Give dead letters an end, count what an event cost, and remember which worker processes run."""

import sqlalchemy as sa
from alembic import op

from shared.downgrades import refuse_to_lose

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Add what dead letters and the search for lethal events need; no row is rewritten."""
    op.add_column(
        "outbox_events",
        sa.Column(
            "attempts",
            sa.SmallInteger(),
            server_default=sa.text("0"),
            comment="How often a cautious worker began with it and came to no end.",
        ),
    )
    # Not a NOT NULL: workers of the version before copy the table's columns, and those constraints with
    # them, for their audit's canary.
    op.create_check_constraint(
        "outbox_events_attempts_counted", "outbox_events", "attempts IS NOT NULL AND attempts >= 0"
    )
    op.add_column(
        "outbox_dead_letters",
        sa.Column(
            "attempts",
            sa.SmallInteger(),
            server_default=sa.text("1"),
            nullable=False,
            comment="How often it was tried.",
        ),
    )
    op.add_column(
        "outbox_dead_letters",
        sa.Column(
            "state",
            sa.String(),
            server_default=sa.text("'dead'"),
            nullable=False,
            comment="dead | superseded | replayed | discarded",
        ),
    )
    op.add_column(
        "outbox_dead_letters",
        sa.Column(
            "closed_at",
            sa.DateTime(timezone=True),
            comment="When it ceased to be dead; removed so many days later.",
        ),
    )
    op.add_column(
        "outbox_dead_letters",
        sa.Column(
            "replayed_as", sa.BigInteger(), comment="outbox_events.id of the event that took its place."
        ),
    )
    op.create_check_constraint(
        "outbox_dead_letters_known_state",
        "outbox_dead_letters",
        "state IN ('dead', 'superseded', 'replayed', 'discarded')",
    )
    op.create_check_constraint(
        "outbox_dead_letters_closed_unless_dead",
        "outbox_dead_letters",
        "(state = 'dead') = (closed_at IS NULL)",
    )
    op.create_check_constraint(
        "outbox_dead_letters_replayed_as_an_event",
        "outbox_dead_letters",
        "(state = 'replayed') = (replayed_as IS NOT NULL)",
    )
    op.create_index(
        "outbox_dead_letters_open",
        "outbox_dead_letters",
        ["id"],
        postgresql_where=sa.text("closed_at IS NULL"),
    )
    op.create_index(
        "outbox_dead_letters_closed",
        "outbox_dead_letters",
        ["closed_at"],
        postgresql_where=sa.text("closed_at IS NOT NULL"),
    )
    op.create_table(
        "worker_processes",
        sa.Column("id", sa.BigInteger(), sa.Identity(), nullable=False),
        sa.Column("name", sa.String(), nullable=False, comment="host:pid"),
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
        sa.Column("ended_at", sa.DateTime(timezone=True), comment="NULL: it runs, or ended uncleanly."),
        sa.PrimaryKeyConstraint("id"),
        comment="Worker processes. One that is silent and has not ended was killed, or crashed.",
    )


def downgrade() -> None:
    """Forget which workers ran, and the letters that are closed; refused while any is open.

    Of closed ones the release before would know no more than that they were letters once.
    """
    refuse_to_lose(
        op.get_bind(),
        "outbox_events",
        "outbox_dead_letters",
        "worker_processes",
        found={
            "SELECT count(*) FROM outbox_dead_letters WHERE closed_at IS NULL": (
                "dead letters are open: replay or discard them (python -m worker.dead_letters)."
            ),
            "SELECT count(*) FROM outbox_events WHERE attempts > 0": (
                "pending events ended their worker before, which would be forgotten: let a worker settle"
                " them."
            ),
        },
    )
    op.execute("DELETE FROM outbox_dead_letters")
    op.drop_table("worker_processes")
    op.drop_index("outbox_dead_letters_closed", table_name="outbox_dead_letters")
    op.drop_index("outbox_dead_letters_open", table_name="outbox_dead_letters")
    for column in ("replayed_as", "closed_at", "state", "attempts"):  # and the constraints with them
        op.drop_column("outbox_dead_letters", column)
    op.drop_column("outbox_events", "attempts")  # and its constraint
