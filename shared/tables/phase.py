"""The tables of the cutover: which phase it is in, how it came there, and what speaks for or against it."""

from sqlalchemy import (
    BigInteger,
    Boolean,
    CheckConstraint,
    Column,
    DateTime,
    Float,
    Index,
    String,
    Table,
    Text,
    func,
    text,
    true,
)
from sqlalchemy.dialects.postgresql import JSONB

from shared.tables.outbox import metadata

ZERO = text("0")
PHASES = "('legacy_only', 'outbox', 'verified', 'shadow_reads', 'reads_moved')"

migration_phase = Table(
    "migration_phase",
    metadata,
    Column("singleton", Boolean, primary_key=True, server_default=true(), comment="There is one row."),
    Column(
        "phase",
        String,
        nullable=False,
        comment="legacy_only | outbox | verified | shadow_reads | reads_moved",
    ),
    Column("epoch", BigInteger, nullable=False, server_default=ZERO, comment="One more with each turn."),
    Column("since", DateTime(timezone=True), nullable=False, server_default=func.clock_timestamp()),
    Column("actor", Text, nullable=False, comment="Who turned it last; not proved."),
    Column(
        "falls_back",
        Boolean,
        nullable=False,
        server_default=true(),
        comment="Whether moved reads go back by themselves when a comparison finds a mismatch.",
    ),
    CheckConstraint("singleton", name="migration_phase_one_row"),
    CheckConstraint(f"phase IN {PHASES}", name="migration_phase_known_phase"),
    comment="Where reads come from: visible_collections asks this row in each statement.",
)

phase_turns = Table(
    "phase_turns",
    metadata,
    Column("epoch", BigInteger, primary_key=True, autoincrement=False, comment="The one that it began."),
    Column("turned_at", DateTime(timezone=True), nullable=False, server_default=func.clock_timestamp()),
    Column("from_phase", String, nullable=False),
    Column("to_phase", String, nullable=False),
    Column("kind", String, nullable=False, comment="advance | back | fall_back"),
    Column("actor", Text, nullable=False, comment="Who turned it; not proved."),
    Column("reason", Text, comment="Why; there is one wherever it was forced."),
    Column("forced", Boolean, nullable=False, comment="Although gates were not met."),
    Column("gates", JSONB, nullable=False, comment="The gates as they were in the transaction of the turn."),
    Column("losses", JSONB, comment="What going back would lose, as last counted; NULL: not counted."),
    CheckConstraint("kind IN ('advance', 'back', 'fall_back')", name="phase_turns_known_kind"),
    CheckConstraint("NOT forced OR reason IS NOT NULL", name="phase_turns_forced_for_a_reason"),
    CheckConstraint("length(actor) BETWEEN 1 AND 200", name="phase_turns_named_actor"),
    comment="The turns of migration_phase, each written in its own transaction.",
)

shadow_counts = Table(
    "shadow_counts",
    metadata,
    Column("epoch", BigInteger, primary_key=True, autoincrement=False, comment="migration_phase.epoch"),
    Column("minute", DateTime(timezone=True), primary_key=True),
    Column("matched", BigInteger, nullable=False, server_default=ZERO, comment="Lists without a difference."),
    Column("mismatched", BigInteger, nullable=False, server_default=ZERO, comment="Lists with a mismatch."),
    Column(
        "pending",
        BigInteger,
        nullable=False,
        server_default=ZERO,
        comment="Differ; events wait.",
    ),
    Column(
        "lettered", BigInteger, nullable=False, server_default=ZERO, comment="Differ; an open letter is why."
    ),
    Column(
        "dropped", BigInteger, nullable=False, server_default=ZERO, comment="Sampled, and not compared: busy."
    ),
    Column("failed", BigInteger, nullable=False, server_default=ZERO, comment="Sampled; came to no end."),
    Column("collections", BigInteger, nullable=False, server_default=ZERO, comment="Compared in all lists."),
    Column("legacy_seconds", Float, nullable=False, server_default=ZERO, comment="The reads of collections."),
    Column("target_seconds", Float, nullable=False, server_default=ZERO, comment="Of project_collections."),
    Column("last_at", DateTime(timezone=True), comment="When the last of them was compared; NULL: none was."),
    comment="Lists that were compared from both sides, by minute; removed after 30 days.",
)
Index("shadow_counts_by_minute", shadow_counts.c.minute)

shadow_findings = Table(
    "shadow_findings",
    metadata,
    Column("project_id", String, primary_key=True, comment="The project whose list was compared."),
    Column("collection_id", String, primary_key=True),
    Column("kind", String, nullable=False, comment="missing | mismatched | orphaned"),
    Column("epoch", BigInteger, nullable=False, comment="migration_phase.epoch when it was found last."),
    Column("found_at", DateTime(timezone=True), nullable=False, server_default=func.clock_timestamp()),
    Column("found_times", BigInteger, nullable=False, server_default=text("1")),
    CheckConstraint("kind IN ('missing', 'mismatched', 'orphaned')", name="shadow_findings_known_kind"),
    comment="Mismatches that comparisons of lists found: neither an event nor a letter explains them.",
)
Index("shadow_findings_by_time", shadow_findings.c.found_at)

going_back_losses = Table(
    "going_back_losses",
    metadata,
    Column("singleton", Boolean, primary_key=True, server_default=true(), comment="There is one row."),
    Column("counted_at", DateTime(timezone=True), nullable=False, server_default=func.clock_timestamp()),
    Column("took_seconds", Float, nullable=False, comment="What the count took."),
    Column("further_links", BigInteger, nullable=False, comment="Rows that link to another than the home."),
    Column("tags", BigInteger, nullable=False, comment="Rows with tags."),
    Column("mappings", BigInteger, nullable=False, comment="Rows with questions or hypotheses mapped."),
    Column("contexts", BigInteger, nullable=False, comment="Rows whose context is not the description."),
    Column("without_home", BigInteger, nullable=False, comment="Active and linked, without a home row."),
    CheckConstraint("singleton", name="going_back_losses_one_row"),
    comment="What only project_collections holds; counted by workers.",
)
