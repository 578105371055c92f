"""Setting events aside that can never be applied."""

from collections.abc import Mapping

from sqlalchemy import BigInteger, String, bindparam, text
from sqlalchemy.dialects.postgresql import ARRAY
from sqlalchemy.ext.asyncio import AsyncConnection

from worker.outcomes import Outcome, Verdict

# Served by outbox_events_pkey. Copies the events as they are, with the reason beside them.
BURY = text("""
    INSERT INTO outbox_dead_letters
        (id, aggregate_id, event_type, source, payload, created_at, sqlstate, error)
    SELECT event.id, event.aggregate_id, event.event_type, event.source, event.payload,
        event.created_at, dead.sqlstate, dead.error
    FROM unnest(:ids, :sqlstates, :errors) AS dead (id, sqlstate, error)
    JOIN outbox_events AS event ON event.id = dead.id
""").bindparams(
    bindparam("ids", type_=ARRAY(BigInteger)),
    bindparam("sqlstates", type_=ARRAY(String)),
    bindparam("errors", type_=ARRAY(String)),
)


async def bury(connection: AsyncConnection, verdicts: Mapping[int, Verdict]) -> None:
    """Keep every event that was found dead, with its reason, in the transaction that acknowledges it."""
    dead = {event_id: verdict for event_id, verdict in verdicts.items() if verdict.outcome is Outcome.DEAD}
    if not dead:
        return
    await connection.execute(
        BURY,
        {
            "ids": list(dead),
            "sqlstates": [verdict.sqlstate for verdict in dead.values()],
            "errors": [verdict.error for verdict in dead.values()],
        },
    )
