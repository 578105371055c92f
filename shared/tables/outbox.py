"""The tables of this system: the outbox, its dead letters, the versions applied, and who applies them."""

from sqlalchemy import (
    BigInteger,
    Boolean,
    CheckConstraint,
    Column,
    Computed,
    DateTime,
    Identity,
    Index,
    MetaData,
    SmallInteger,
    String,
    Table,
    Text,
    false,
    func,
    text,
)
from sqlalchemy.dialects.postgresql import JSONB

metadata = MetaData()

TRACEPARENT_SHAPE = "traceparent ~ '^00-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2}$'"
TRACEPARENT_COMMENT = "The trace that the event was written in, as W3C Trace Context writes it."

# By a function of revision 0012, which refuses versions and traceparents that are none. So that each worker
# claims a range of lanes and walks over none that it does not know: later versions of live events come before
# those of earlier ones, and later versions of the others behind them.
LANE = "outbox_lane(source, schema_version, traceparent)"

outbox_events = Table(
    "outbox_events",
    metadata,
    Column(
        "id", BigInteger, Identity(), primary_key=True, comment="The version: drawn under the row's lock."
    ),
    Column("aggregate_id", String, nullable=False, comment="collections.collection_id"),
    Column("event_type", String, nullable=False, comment="collection.created | .updated | .deleted"),
    Column("source", String, nullable=False, comment="api | capture | repair | backfill"),
    Column("payload", JSONB, nullable=False, comment="The collection's full projected state."),
    Column("created_at", DateTime(timezone=True), nullable=False, server_default=func.clock_timestamp()),
    Column(
        "lane",
        SmallInteger,
        Computed(LANE, persisted=True),
        nullable=False,
        comment="Claimed in this order: 0 live, 1 repair, 2 backfill; of version v 1-v, 2v-1 and 2v.",
    ),
    Column(
        "attempts",
        SmallInteger,
        server_default=text("0"),
        comment="How often a cautious worker began with it and came to no end.",
    ),
    Column("traceparent", Text, comment=TRACEPARENT_COMMENT),
    Column(
        "schema_version",
        SmallInteger,
        server_default=text("1"),
        comment="Of the payload and its meaning; workers leave alone what they do not know.",
    ),
    comment="Changes of collections that project_collections does not show yet. Applied events are deleted.",
)
Index("outbox_events_claim_order", outbox_events.c.lane, outbox_events.c.id)
Index("outbox_events_of_aggregate", outbox_events.c.aggregate_id, outbox_events.c.id)

applied_versions = Table(
    "applied_versions",
    metadata,
    Column("collection_id", String, primary_key=True),
    Column("version", BigInteger, nullable=False, comment="outbox_events.id of the last event applied."),
    Column("project_id", String, nullable=False, comment="The home project that version named."),
    Column("previous_project_id", String, comment="The home it moved away from; NULL when it did not move."),
    Column("is_deleted", Boolean, nullable=False, comment="A tombstone: nothing older brings it back."),
    Column(
        "found_row",
        Boolean,
        nullable=False,
        server_default=false(),
        comment="The home row was there before our first event for it: a rollback keeps it.",
    ),
    Column(
        "appended_at",
        DateTime(timezone=True),
        comment="When the event applied last was appended; NULL: before this was kept.",
    ),
    Column(
        "dated_version",
        BigInteger,
        comment="The version that appended_at is of; another one where an older release applied since.",
    ),
    Column(
        "row_id",
        BigInteger,
        comment="project_collections.id of the home row that we inserted; NULL: not known.",
    ),
    comment="The version guard: an event applies only when its version is higher.",
)
# Whether any version is higher than a number, which is asked of sequences: a few pages, and cheap to keep.
Index(
    "applied_versions_version",
    applied_versions.c.version,
    postgresql_using="brin",
    postgresql_with={"autosummarize": "on"},
)

outbox_dead_letters = Table(
    "outbox_dead_letters",
    metadata,
    Column("id", BigInteger, primary_key=True, autoincrement=False, comment="The event's id."),
    Column("aggregate_id", String, nullable=False),
    Column("event_type", String, nullable=False),
    Column("source", String, nullable=False),
    Column("payload", JSONB, nullable=False),
    Column("created_at", DateTime(timezone=True), nullable=False, comment="When the event was appended."),
    Column("died_at", DateTime(timezone=True), nullable=False, server_default=func.clock_timestamp()),
    Column("sqlstate", String, comment="PostgreSQL's error code; NULL when the event was malformed."),
    Column("error", Text, nullable=False, comment="Why it could not be applied; bounded."),
    Column(
        "attempts", SmallInteger, nullable=False, server_default=text("1"), comment="How often it was tried."
    ),
    Column(
        "state",
        String,
        nullable=False,
        server_default="dead",
        comment="dead | superseded | replayed | discarded",
    ),
    Column(
        "closed_at",
        DateTime(timezone=True),
        comment="When it ceased to be dead; removed so many days later.",
    ),
    Column("replayed_as", BigInteger, comment="outbox_events.id of the event that took its place."),
    Column("traceparent", Text, comment=TRACEPARENT_COMMENT),
    Column("message", Text, comment="PostgreSQL's message; bounded. It may quote what users wrote."),
    Column("detail", Text, comment="Its detail; bounded."),
    Column("hint", Text, comment="Its hint; bounded."),
    CheckConstraint(
        "state IN ('dead', 'superseded', 'replayed', 'discarded')", name="outbox_dead_letters_known_state"
    ),
    CheckConstraint("(state = 'dead') = (closed_at IS NULL)", name="outbox_dead_letters_closed_unless_dead"),
    CheckConstraint(
        "(state = 'replayed') = (replayed_as IS NOT NULL)", name="outbox_dead_letters_replayed_as_an_event"
    ),
    CheckConstraint(
        TRACEPARENT_SHAPE, name="outbox_dead_letters_traceparent_of_w3c", postgresql_not_valid=True
    ),
    comment="Events that can never be applied, set aside so that the others go on.",
)
Index("outbox_dead_letters_of_aggregate", outbox_dead_letters.c.aggregate_id, outbox_dead_letters.c.id)
Index(
    "outbox_dead_letters_open",
    outbox_dead_letters.c.id,
    postgresql_where=outbox_dead_letters.c.closed_at.is_(None),
)
Index(
    "outbox_dead_letters_closed",
    outbox_dead_letters.c.closed_at,
    postgresql_where=outbox_dead_letters.c.closed_at.is_not(None),
)

worker_processes = Table(
    "worker_processes",
    metadata,
    Column("id", BigInteger, Identity(), primary_key=True),
    Column("name", String, nullable=False, comment="host:pid"),
    Column("started_at", DateTime(timezone=True), nullable=False, server_default=func.clock_timestamp()),
    Column("heartbeat_at", DateTime(timezone=True), nullable=False, server_default=func.clock_timestamp()),
    Column("ended_at", DateTime(timezone=True), comment="NULL: it runs, or ended uncleanly."),
    comment="Worker processes. One that is silent and has not ended was killed, or crashed.",
)
