"""The tables of the capture: how it is installed, and which writes of `collections` appended no event."""

from sqlalchemy import (
    BigInteger,
    Boolean,
    CheckConstraint,
    Column,
    DateTime,
    Index,
    String,
    Table,
    Text,
    Uuid,
    func,
    text,
)

from shared.tables.outbox import metadata

capture_settings = Table(
    "capture_settings",
    metadata,
    Column("singleton", Boolean, primary_key=True, server_default=text("true"), comment="There is one row."),
    Column("mode", String, nullable=False, comment="count | append | refuse"),
    Column("definition", String, nullable=False, comment="Digest of the functions and triggers in place."),
    Column("installed_by", Text, nullable=False, comment="The role that installed it, or changed its mode."),
    Column("installed_at", DateTime(timezone=True), nullable=False, server_default=func.clock_timestamp()),
    CheckConstraint("singleton", name="capture_settings_one_row"),
    CheckConstraint("mode IN ('count', 'append', 'refuse')", name="capture_settings_known_mode"),
    comment="How writes of collections that append no event are captured. No row: they are not.",
)
captured_writes = Table(
    "captured_writes",
    metadata,
    Column("id", Uuid, primary_key=True, server_default=text("gen_random_uuid()")),
    Column("collection_id", String, comment="NULL: of all of them, by TRUNCATE."),
    Column("role", Text, nullable=False, comment="Who had logged in: session_user."),
    Column("application", Text, nullable=False, comment="Its application_name."),
    Column("operation", String, nullable=False, comment="insert | update | delete | truncate"),
    Column("captured_at", DateTime(timezone=True), nullable=False, server_default=func.clock_timestamp()),
    comment="Captured, and not counted by a worker yet. Writers only insert, so none waits for another.",
)
captured_counts = Table(
    "captured_counts",
    metadata,
    Column("role", Text, primary_key=True),
    Column("application", Text, primary_key=True),
    Column("operation", String, primary_key=True),
    Column("minute", DateTime(timezone=True), primary_key=True),
    Column("writes", BigInteger, nullable=False, comment="Captured in that minute, and counted."),
    Column("last_at", DateTime(timezone=True), nullable=False, comment="When the last of them was captured."),
    CheckConstraint("writes > 0", name="captured_counts_of_something"),
    comment="Captured writes by who made them, and when; removed after 30 days.",
)
Index("captured_counts_by_minute", captured_counts.c.minute)
captured_writers = Table(
    "captured_writers",
    metadata,
    Column("collection_id", String, primary_key=True),
    Column("role", Text, nullable=False),
    Column("application", Text, nullable=False),
    Column("operation", String, nullable=False),
    Column("captured_at", DateTime(timezone=True), nullable=False),
    comment="Whose write of a collection was captured last, for audits to name; removed after 30 days.",
)
Index("captured_writers_by_time", captured_writers.c.captured_at)
