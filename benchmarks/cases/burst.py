"""From the last of 10,000 commits, as fast as the server makes them, until one worker has drained all."""

import asyncio
import time
from collections.abc import Sequence

from benchmarks.bench import Bench, require
from benchmarks.figures import Figure
from benchmarks.live_writes import PROJECT, Writers, writing
from shared.projection import PAYLOAD

DRAINED_AT_MOST_SECONDS = 0.5
CONNECTIONS = 8
RING_EVERY_SECONDS = 0.001

# A transaction for each write, as the API's, but without a round trip for each statement.
WRITE_MANY = f"""
    CREATE PROCEDURE write_many(prefix text, writes integer) LANGUAGE plpgsql AS $$
    DECLARE
        kind text;
        key text;
    BEGIN
        FOR number IN 0..writes - 1 LOOP
            CASE
                WHEN number % 10 < 6 THEN
                    kind := 'collection.created';
                    key := prefix || number;
                    INSERT INTO collections
                        (collection_id, project_id, collection_name, description, created_by, is_active)
                    VALUES (key, '{PROJECT}', 'benchmark', 'text ' || number, '{PROJECT}', true);
                WHEN number % 10 < 9 THEN
                    kind := 'collection.updated';
                    key := prefix || (number - 6);
                    UPDATE collections SET description = 'text ' || number, updated_at = clock_timestamp()
                    WHERE collection_id = key;
                ELSE
                    kind := 'collection.deleted';
                    key := prefix || (number - 4);
                    UPDATE collections SET is_active = false, updated_at = clock_timestamp()
                    WHERE collection_id = key;
            END CASE;
            INSERT INTO outbox_events (aggregate_id, event_type, source, payload)
            SELECT collection_id, kind, 'api', {PAYLOAD} FROM collections WHERE collection_id = key;
            COMMIT;
        END LOOP;
    END $$
"""  # noqa: S608 - constants
LAST_ID = "SELECT last_value FROM outbox_events_id_seq"


async def measure(bench: Bench) -> Sequence[Figure]:
    """Write bursts; between two of them everything is settled."""
    repeats, writes = bench.choose(1, 4, 9), bench.choose(1_000, 10_000)
    bench.facts.update({"repeats": repeats, "writes": f"{writes:,}", "connections": CONNECTIONS})
    drained, rates = [], []
    async with bench.sql() as sql, writing(bench) as writers:
        await sql.execute(WRITE_MANY)
        await writers.write_steadily(100, 1)
        for repeat in range(repeats):
            before, began = await sql.fetchval(LAST_ID), time.time()
            ended = await write_at_once(bench, writers, f"burst-{repeat}", writes // CONNECTIONS)
            ids = range(before + 1, await sql.fetchval(LAST_ID) + 1)
            require(len(ids) == writes, f"each of {writes} writes appended an event, not {len(ids)}")
            await writers.worker.applied(ids)
            drained.append(max(writers.worker.applied_at[event_id] for event_id in ids) - ended)
            rates.append(writes / (ended - began))
    return [
        Figure("from the last commit to drained", "s", drained, at_most=DRAINED_AT_MOST_SECONDS),
        Figure("writes", "1/s", rates),
    ]


async def write_at_once(bench: Bench, writers: Writers, prefix: str, writes: int) -> float:
    """Write so often on each connection while the bell rings; return when the last COMMIT had returned."""

    async def write_on(number: int) -> float:
        async with bench.sql() as sql:
            await sql.execute("CALL write_many($1, $2)", f"{prefix}-{number}-", writes)
            return time.time()

    writing_on = asyncio.gather(*(write_on(number) for number in range(CONNECTIONS)))
    while not writing_on.done():
        await asyncio.sleep(RING_EVERY_SECONDS)
        writers.press()
    return max(await writing_on)
