"""The tables of what people ask for: the acts of operators, and requests that a client may repeat."""

from sqlalchemy import (
    JSON,
    CheckConstraint,
    Column,
    DateTime,
    Index,
    LargeBinary,
    String,
    Table,
    Text,
    Uuid,
    func,
    text,
)

from shared.tables.outbox import metadata

operator_acts = Table(
    "operator_acts",
    metadata,
    Column("id", Uuid, primary_key=True, server_default=text("gen_random_uuid()")),
    Column("acted_at", DateTime(timezone=True), nullable=False, server_default=func.clock_timestamp()),
    Column("actor", Text, nullable=False, comment="The name that the caller gave; not proved."),
    Column("act", Text, nullable=False, comment="What was done, e.g. backfill.pause."),
    Column("subject", Text, comment="What it was done to: a run, letters; bounded. NULL: the whole."),
    Column("outcome", Text, nullable=False, comment="What came of it, as it was answered."),
    CheckConstraint("length(actor) BETWEEN 1 AND 200", name="operator_acts_named_actor"),
    comment="What operators did over HTTP, written in the transaction of the act itself.",
)
Index("operator_acts_by_time", operator_acts.c.acted_at)

idempotency_keys = Table(
    "idempotency_keys",
    metadata,
    Column("user_id", String, primary_key=True, comment="Who sent it: users.user_id."),
    Column("project_id", String, primary_key=True),
    Column("key", Text, primary_key=True, comment="The header Idempotency-Key."),
    Column("fingerprint", LargeBinary, nullable=False, comment="SHA-256 of what was asked."),
    Column("answer", JSON, nullable=False, comment="The body of the first answer."),
    Column("created_at", DateTime(timezone=True), nullable=False, server_default=func.clock_timestamp()),
    CheckConstraint("length(key) BETWEEN 1 AND 255", name="idempotency_keys_bounded_key"),
    comment="Creations that a client may ask for again within a day; written in the write's statement.",
)
Index("idempotency_keys_by_time", idempotency_keys.c.created_at)
