"""Keep operators' acts, PostgreSQL's words on a dead letter, answers to keyed requests, a run's brake."""

import sqlalchemy as sa
from alembic import op

from shared.downgrades import refuse_to_lose

revision = "0009"
down_revision = "0008"
branch_labels = None
depends_on = None

SAID = {
    "message": "PostgreSQL's message; bounded. It may quote what users wrote.",
    "detail": "Its detail; bounded.",
    "hint": "Its hint; bounded.",
}


def upgrade() -> None:
    """Add the columns and tables; no row is rewritten, and older releases leave all of it alone."""
    for name, comment in SAID.items():
        op.add_column("outbox_dead_letters", sa.Column(name, sa.Text(), comment=comment))
    op.add_column(
        "backfill_runs",
        sa.Column("slowed_by", sa.Text(), comment="What bounds its speed; NULL: the speed of PostgreSQL."),
    )
    op.create_table(
        "operator_acts",
        sa.Column("id", sa.Uuid(), primary_key=True, server_default=sa.text("gen_random_uuid()")),
        sa.Column(
            "acted_at",
            sa.DateTime(timezone=True),
            nullable=False,
            server_default=sa.text("clock_timestamp()"),
        ),
        sa.Column("actor", sa.Text(), nullable=False, comment="The name that the caller gave; not proved."),
        sa.Column("act", sa.Text(), nullable=False, comment="What was done, e.g. backfill.pause."),
        sa.Column(
            "subject", sa.Text(), comment="What it was done to: a run, letters; bounded. NULL: the whole."
        ),
        sa.Column("outcome", sa.Text(), nullable=False, comment="What came of it, as it was answered."),
        sa.CheckConstraint("length(actor) BETWEEN 1 AND 200", name="operator_acts_named_actor"),
        comment="What operators did over HTTP, written in the transaction of the act itself.",
    )
    op.create_index("operator_acts_by_time", "operator_acts", ["acted_at"])
    op.create_table(
        "idempotency_keys",
        sa.Column("user_id", sa.String(), primary_key=True, comment="Who sent it: users.user_id."),
        sa.Column("project_id", sa.String(), primary_key=True),
        sa.Column("key", sa.Text(), primary_key=True, comment="The header Idempotency-Key."),
        sa.Column("fingerprint", sa.LargeBinary(), nullable=False, comment="SHA-256 of what was asked."),
        sa.Column("answer", sa.JSON(), nullable=False, comment="The body of the first answer."),
        sa.Column(
            "created_at",
            sa.DateTime(timezone=True),
            nullable=False,
            server_default=sa.text("clock_timestamp()"),
        ),
        sa.CheckConstraint("length(key) BETWEEN 1 AND 255", name="idempotency_keys_bounded_key"),
        comment="Creations that a client may ask for again within a day; written in the write's statement.",
    )
    op.create_index("idempotency_keys_by_time", "idempotency_keys", ["created_at"])


def downgrade() -> None:
    """Drop them, unless acts are on record. PostgreSQL's words and the keys of the last day are forgotten."""
    refuse_to_lose(
        op.get_bind(),
        "operator_acts",
        found={
            "SELECT count(*) FROM operator_acts": (
                "acts of operators are on record and would be lost: copy operator_acts, then empty it."
            )
        },
    )
    op.drop_table("idempotency_keys")
    op.drop_table("operator_acts")
    op.drop_column("backfill_runs", "slowed_by")
    for name in SAID:
        op.drop_column("outbox_dead_letters", name)
