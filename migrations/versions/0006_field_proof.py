"""Let a guard know when its event was appended and which row it made; let runs be none but possible ones."""

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None

# Not validated: what an earlier release left there stays. They hold for what is written from here on.
POSSIBLE = {
    "audit_runs": {
        "audit_runs_begun_unless_requested": (
            "status = 'requested' OR (started_at IS NOT NULL AND heartbeat_at IS NOT NULL)"
        ),
        "audit_runs_ended_when_it_says_so": "(status IN ('finished', 'failed')) = (finished_at IS NOT NULL)",
    },
    "backfill_runs": {
        "backfill_runs_possible_options": (
            "chunk_size BETWEEN 1 AND 10000 AND max_pending > 0 AND (rate IS NULL OR rate > 0)"
            " AND planned >= 0"
        ),
    },
}


# Which run is the newest is a matter of time: ids may have begun anew.
BY_TIME = {
    "audit_runs_unfinished": ("audit_runs", "requested_at", "status IN ('requested', 'running')"),
    "audit_runs_by_end": ("audit_runs", "finished_at", "finished_at IS NOT NULL"),
    "backfill_runs_by_start": ("backfill_runs", "started_at", None),
}


def upgrade() -> None:
    """Add columns, which older releases leave as they are, indexes of few pages, and constraints."""
    op.add_column(
        "applied_versions",
        sa.Column(
            "appended_at",
            sa.DateTime(timezone=True),
            comment="When the event applied last was appended; NULL: before this was kept.",
        ),
    )
    op.add_column(
        "applied_versions",
        sa.Column(
            "dated_version",
            sa.BigInteger(),
            comment="The version that appended_at is of; another one where an older release applied since.",
        ),
    )
    op.add_column(
        "applied_versions",
        sa.Column(
            "row_id",
            sa.BigInteger(),
            comment="project_collections.id of the home row that we inserted; NULL: not known.",
        ),
    )
    # It answers whether any version is higher than a number; that is asked of sequences. It costs an
    # update next to nothing, as an ordinary index would not.
    op.create_index(
        "applied_versions_version",
        "applied_versions",
        ["version"],
        postgresql_using="brin",
        postgresql_with={"autosummarize": "on"},
    )
    for name, (table, column, condition) in BY_TIME.items():
        where = None if condition is None else sa.text(condition)
        op.create_index(name, table, [column], postgresql_where=where)
    for table, constraints in POSSIBLE.items():
        for name, condition in constraints.items():
            op.create_check_constraint(name, table, condition, postgresql_not_valid=True)


def downgrade() -> None:
    """Forget the columns: nothing that an earlier release knows is lost."""
    for table, constraints in POSSIBLE.items():
        for name in constraints:
            op.drop_constraint(name, table)
    for name, (table, _, _) in BY_TIME.items():
        op.drop_index(name, table_name=table)
    op.drop_index("applied_versions_version", table_name="applied_versions")
    op.drop_column("applied_versions", "row_id")
    op.drop_column("applied_versions", "dated_version")
    op.drop_column("applied_versions", "appended_at")
