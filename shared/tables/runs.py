"""The tables that remember backfills and audits: their options, how far they came, what they found."""

from sqlalchemy import (
    BigInteger,
    Boolean,
    CheckConstraint,
    Column,
    DateTime,
    ForeignKey,
    Identity,
    Index,
    Integer,
    String,
    Table,
    Text,
    Uuid,
    func,
    text,
)
from sqlalchemy.dialects.postgresql import JSONB

from shared.tables.outbox import metadata

ZERO = text("0")

backfill_runs = Table(
    "backfill_runs",
    metadata,
    Column("id", BigInteger, Identity(), primary_key=True),
    Column("status", String, nullable=False, comment="running | paused | cancelled | finished"),
    Column("in_worker", Boolean, nullable=False, comment="Workers drive it; otherwise a command does."),
    Column("project_id", String, comment="Only this home project; NULL: all."),
    Column("rate", Integer, comment="At most this many rows a second; NULL: as fast as may be."),
    Column("max_pending", Integer, nullable=False, comment="Throttled at so many pending backfill events."),
    Column("chunk_size", Integer, nullable=False, comment="Rows of the next chunk; adapts to its time."),
    Column("cursor_key", String, comment="The last collection_id processed; NULL: none yet."),
    Column("end_key", String, comment="The highest collection_id at the start; NULL: there was none."),
    Column("planned", BigInteger, nullable=False, comment="Rows of `collections` counted at the start."),
    Column("processed", BigInteger, nullable=False, server_default=ZERO, comment="Rows looked at."),
    Column("enqueued", BigInteger, nullable=False, server_default=ZERO, comment="Events appended."),
    Column("skipped", BigInteger, nullable=False, server_default=ZERO, comment="Nothing to do for them."),
    Column("missing", BigInteger, nullable=False, server_default=ZERO, comment="Enqueued: no home row."),
    Column("mismatched", BigInteger, nullable=False, server_default=ZERO, comment="Enqueued: differed."),
    Column("orphaned", BigInteger, nullable=False, server_default=ZERO, comment="Enqueued: deleted."),
    Column("last_event_id", BigInteger, comment="The highest outbox_events.id of this run."),
    Column("throttled_by", Text, comment="Why it waits at the moment; NULL: it does not."),
    Column("slowed_by", Text, comment="What bounds its speed; NULL: the speed of PostgreSQL."),
    Column("driver", String, comment="host:pid of the process that drives it or drove it last."),
    Column("driver_token", Uuid, comment="Drawn by whoever takes the run over; only its holder goes on."),
    Column("started_at", DateTime(timezone=True), nullable=False, server_default=func.clock_timestamp()),
    Column("heartbeat_at", DateTime(timezone=True), nullable=False, server_default=func.clock_timestamp()),
    Column("finished_at", DateTime(timezone=True)),
    CheckConstraint(
        "status IN ('running', 'paused', 'cancelled', 'finished')", name="backfill_runs_known_status"
    ),
    CheckConstraint("processed = enqueued + skipped", name="backfill_runs_every_row_accounted_for"),
    CheckConstraint(
        "enqueued = missing + mismatched + orphaned", name="backfill_runs_every_event_has_a_kind"
    ),
    CheckConstraint(
        "chunk_size BETWEEN 1 AND 10000 AND max_pending > 0 AND (rate IS NULL OR rate > 0) AND planned >= 0",
        name="backfill_runs_possible_options",
        postgresql_not_valid=True,
    ),
    Index(
        "backfill_runs_one_at_a_time",
        text("(true)"),
        unique=True,
        postgresql_where=text("status IN ('running', 'paused')"),
    ),
    Index("backfill_runs_by_start", "started_at"),
    comment="Backfills. The cursor moves in the transaction that appends its chunk's events.",
)
audit_runs = Table(
    "audit_runs",
    metadata,
    Column("id", BigInteger, Identity(), primary_key=True),
    Column("status", String, nullable=False, comment="requested | running | finished | failed"),
    Column("verdict", String, comment="in_sync | pending | drift | repaired | incomplete"),
    Column("requested_by", String, nullable=False, comment="command | schedule | backfill | admin"),
    Column("project_id", String, comment="Only this home project; NULL: all."),
    Column("repair", Boolean, nullable=False, comment="Append events for what was found."),
    Column("chunks_planned", BigInteger, nullable=False, server_default=ZERO),
    Column("chunks_done", BigInteger, nullable=False, server_default=ZERO),
    Column("planned", BigInteger, nullable=False, server_default=ZERO, comment="Pairs to compare."),
    Column("compared", BigInteger, nullable=False, server_default=ZERO, comment="Pairs compared."),
    Column("active_collections", BigInteger, nullable=False, server_default=ZERO),
    Column("home_rows", BigInteger, nullable=False, server_default=ZERO),
    Column("missing", BigInteger, nullable=False, server_default=ZERO),
    Column("mismatched", BigInteger, nullable=False, server_default=ZERO),
    Column("orphaned", BigInteger, nullable=False, server_default=ZERO),
    Column("pending", BigInteger, nullable=False, server_default=ZERO, comment="Differ; their event waits."),
    Column("repaired", BigInteger, nullable=False, server_default=ZERO, comment="Verified afterwards."),
    Column("canary_found", Boolean, comment="The pass found every planted difference."),
    Column("error", Text, comment="Why it failed or is incomplete."),
    Column("requested_at", DateTime(timezone=True), nullable=False, server_default=func.clock_timestamp()),
    Column("started_at", DateTime(timezone=True)),
    Column("heartbeat_at", DateTime(timezone=True)),
    Column("finished_at", DateTime(timezone=True)),
    Column("driver_token", Uuid, comment="Drawn by the process that takes the run; only its holder writes."),
    CheckConstraint(
        "status IN ('requested', 'running', 'finished', 'failed')", name="audit_runs_known_status"
    ),
    CheckConstraint(
        "verdict IN ('in_sync', 'pending', 'drift', 'repaired', 'incomplete')",
        name="audit_runs_known_verdict",
    ),
    CheckConstraint(
        "status = 'requested' OR (started_at IS NOT NULL AND heartbeat_at IS NOT NULL)",
        name="audit_runs_begun_unless_requested",
        postgresql_not_valid=True,
    ),
    CheckConstraint(
        "(status IN ('finished', 'failed')) = (finished_at IS NOT NULL)",
        name="audit_runs_ended_when_it_says_so",
        postgresql_not_valid=True,
    ),
    Index(
        "audit_runs_unfinished",
        "requested_at",
        postgresql_where=text("status IN ('requested', 'running')"),
    ),
    Index("audit_runs_by_end", "finished_at", postgresql_where=text("finished_at IS NOT NULL")),
    comment="Audits. A verdict other than incomplete needs every planned pair compared, and the canary.",
)

audit_findings = Table(
    "audit_findings",
    metadata,
    Column(
        "audit_run_id",
        BigInteger,
        ForeignKey("audit_runs.id", ondelete="CASCADE"),
        primary_key=True,
        autoincrement=False,
    ),
    Column("collection_id", String, primary_key=True),
    Column("project_id", String, nullable=False, comment="The home project."),
    Column("kind", String, nullable=False, comment="missing | mismatched | orphaned"),
    Column("legacy", JSONB, comment="The projection of the legacy row; NULL: it should have no home row."),
    Column("target", JSONB, comment="The home row as it was found; NULL: there was none."),
    Column("found_at", DateTime(timezone=True), nullable=False, server_default=func.clock_timestamp()),
    Column("repair_event_id", BigInteger, comment="The event appended for it; NULL: none."),
    Column("outcome", String, comment="repaired | still_differs | pending; NULL: not repaired."),
    CheckConstraint("kind IN ('missing', 'mismatched', 'orphaned')", name="audit_findings_known_kind"),
    CheckConstraint(
        "outcome IN ('repaired', 'still_differs', 'pending')", name="audit_findings_known_outcome"
    ),
    comment="What audits found: all that they repaired, and the first of what they only reported.",
)
