"""The tables of this system: the outbox, its dead letters, and the versions applied to the target."""

from sqlalchemy import (
    BigInteger,
    Boolean,
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
)
from sqlalchemy.dialects.postgresql import JSONB

metadata = MetaData()

outbox_events = Table(
    "outbox_events",
    metadata,
    Column(
        "id", BigInteger, Identity(), primary_key=True, comment="The version: drawn under the row's lock."
    ),
    Column("aggregate_id", String, nullable=False, comment="collections.collection_id"),
    Column("event_type", String, nullable=False, comment="collection.created | .updated | .deleted"),
    Column("source", String, nullable=False, comment="api | repair | backfill"),
    Column("payload", JSONB, nullable=False, comment="The collection's full projected state."),
    Column("created_at", DateTime(timezone=True), nullable=False, server_default=func.clock_timestamp()),
    Column(
        "lane",
        SmallInteger,
        Computed("CASE source WHEN 'api' THEN 0 WHEN 'repair' THEN 1 ELSE 2 END", persisted=True),
        nullable=False,
        comment="Claimed in this order: 0 live, 1 repair, 2 backfill.",
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
    comment="The version guard: an event applies only when its version is higher.",
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
    comment="Events that can never be applied, set aside so that the others go on.",
)
Index("outbox_dead_letters_of_aggregate", outbox_dead_letters.c.aggregate_id, outbox_dead_letters.c.id)
