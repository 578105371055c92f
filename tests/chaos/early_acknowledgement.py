"""A broken twin of the worker: it commits the acknowledgement of a batch before it applies the batch."""

import asyncio
import runpy
from typing import Any

import asyncpg

import worker.relay.claim
import worker.relay.run
from worker.relay.claim import ClaimedEvent, acknowledge

PAUSE_SECONDS = 0.8  # nearly always it has events in hand; with 0.3 it was often killed without
real_claim = worker.relay.claim.claim

KEEP = "CREATE TEMPORARY TABLE IF NOT EXISTS kept (LIKE outbox_events)"
COPY = "INSERT INTO kept SELECT * FROM outbox_events WHERE id = ANY($1)"
PUT_BACK = """
    INSERT INTO outbox_events (id, aggregate_id, event_type, source, payload, created_at)
    OVERRIDING SYSTEM VALUE
    SELECT id, aggregate_id, event_type, source, payload, created_at FROM kept
"""


async def claim_for_good(connection: asyncpg.Connection, *arguments: Any, **more: Any) -> list[ClaimedEvent]:  # noqa: ANN401
    """Take the events out of the outbox in a transaction of their own; who dies afterwards loses them."""
    events = await real_claim(connection, *arguments, **more)
    if events:
        await connection.execute(KEEP)
        await connection.execute("TRUNCATE kept")
        await connection.execute(COPY, [event.id for event in events])
        await acknowledge(connection, events)
        await connection.execute("COMMIT")
        await asyncio.sleep(PAUSE_SECONDS)
        await connection.execute("BEGIN")
        await connection.execute(PUT_BACK)  # in the transaction that applies them, unseen by others
    return events


if __name__ == "__main__":
    vars(worker.relay.run)["claim"] = claim_for_good
    runpy.run_module("worker", run_name="__main__", alter_sys=True)
