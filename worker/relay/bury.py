"""Setting events aside that can never be applied."""

from collections.abc import Sequence

import asyncpg

from shared.dead_letters import HAS_A_NEWER_ONE
from worker.relay.batch import Batch
from worker.relay.claim import ClaimedEvent, acknowledge
from worker.relay.outcomes import Outcome, Settlement

# Served by outbox_events_pkey; the limit keeps PostgreSQL from reading the whole outbox first. Copies the
# events as they are, with the reason beside them. An event that was delivered twice, and died twice, is
# one letter. Another event's is left as it is. PostgreSQL's words are not taken from excluded, which asks for
# the right to read them: the worker's role may only write them.
BURY = """
    INSERT INTO outbox_dead_letters
        (id, aggregate_id, event_type, source, payload, created_at, sqlstate, error, attempts,
        traceparent, message, detail, hint)
    SELECT event.id, event.aggregate_id, event.event_type, event.source, event.payload,
        event.created_at, dead.sqlstate, dead.error, greatest(event.attempts, 1), event.traceparent,
        dead.message, dead.detail, dead.hint
    FROM unnest($1::bigint[], $2::text[], $3::text[], $4::text[], $5::text[], $6::text[])
        AS dead (id, sqlstate, error, message, detail, hint)
    CROSS JOIN LATERAL (SELECT * FROM outbox_events WHERE id = dead.id LIMIT 1) AS event
    ON CONFLICT (id) DO UPDATE SET
        sqlstate = excluded.sqlstate,
        error = excluded.error,
        (message, detail, hint) = (
            SELECT said.message, said.detail, said.hint
            FROM unnest($1::bigint[], $4::text[], $5::text[], $6::text[]) AS said (id, message, detail, hint)
            WHERE said.id = excluded.id
        ),
        attempts = outbox_dead_letters.attempts + excluded.attempts,
        died_at = clock_timestamp(),
        state = 'dead',
        closed_at = NULL,
        replayed_as = NULL
    WHERE (outbox_dead_letters.aggregate_id, outbox_dead_letters.created_at)
        = (excluded.aggregate_id, excluded.created_at)
    RETURNING id
"""
# Served by outbox_dead_letters_pkey and outbox_dead_letters_of_aggregate. It waits for nobody: what another
# session has in hand, or buries at this moment, the next look of `worker/dead_letters/upkeep.py` closes.
SUPERSEDE = f"""
    UPDATE outbox_dead_letters
    SET state = 'superseded', closed_at = clock_timestamp()
    WHERE id = ANY(ARRAY(
        SELECT letter.id
        FROM outbox_dead_letters AS letter
        WHERE letter.aggregate_id = ANY(ARRAY(
                SELECT aggregate_id FROM outbox_dead_letters WHERE id = ANY($1)
            ))
            AND letter.closed_at IS NULL AND {HAS_A_NEWER_ONE}
        FOR UPDATE OF letter SKIP LOCKED
    ))
    RETURNING id
"""  # noqa: S608 - constants
NO_LETTER = Settlement(
    Outcome.POSTPONED,
    error="another event's dead letter has this id: the sequence of outbox_events went back",
)


async def bury(connection: asyncpg.Connection, settlements: dict[int, Settlement]) -> list[int]:
    """Keep every event that was found dead, with its reason, in the transaction that acknowledges it.

    Of a collection's open letters only the newest stays open; returned are the ids of those that it closes.
    An event whose id another event's letter has stays pending: its settlement is changed.
    """
    dead = {
        event_id: settlement
        for event_id, settlement in settlements.items()
        if settlement.outcome is Outcome.DEAD
    }
    if not dead:
        return []
    buried = await connection.fetch(
        BURY,
        list(dead),
        [settlement.sqlstate for settlement in dead.values()],
        [settlement.error for settlement in dead.values()],
        [settlement.said.message for settlement in dead.values()],
        [settlement.said.detail for settlement in dead.values()],
        [settlement.said.hint for settlement in dead.values()],
    )
    ids = [event_id for (event_id,) in buried]
    settlements |= dict.fromkeys(dead.keys() - set(ids), NO_LETTER)
    return sorted(event_id for (event_id,) in await connection.fetch(SUPERSEDE, ids))


async def set_aside(
    connection: asyncpg.Connection, events: Sequence[ClaimedEvent], settlement: Settlement
) -> Batch:
    """Bury these events untried, in the transaction that claimed them."""
    settlements = {event.id: settlement for event in events}
    superseded = await bury(connection, settlements)
    await acknowledge(connection, events)
    return Batch(list(events), settlements, is_full=True, superseded=superseded)
