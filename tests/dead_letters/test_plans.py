"""However many letters were ever closed, what is asked of open ones is read by an index."""

import asyncio
import re

import asyncpg
from sqlalchemy.ext.asyncio import AsyncEngine

from shared import dead_letters
from shared.dead_letters import Selection
from shared.letter_groups import find_groups
from tests.api.test_plans import FILL
from tests.status.test_plans import RUNS, remembered
from worker.audit.findings import READ_FIRST
from worker.dead_letters.replays import Replays, wait_for_replays
from worker.dead_letters.upkeep import CLOSE_OLDER
from worker.relay.bury import SUPERSEDE

CLOSED = """
    UPDATE outbox_dead_letters SET state = 'discarded', closed_at = now() WHERE id % 400 <> 0;
    INSERT INTO outbox_dead_letters (id, aggregate_id, event_type, source, payload, created_at, error)
    SELECT nextval(pg_get_serial_sequence('outbox_events', 'id')), 'c' || n, 'collection.updated', 'api',
        '{}', now(), 'error'
    FROM generate_series(1, 100) AS n;
"""


async def test_no_statement_on_open_letters_reads_the_closed_ones(
    engine: AsyncEngine, sql: asyncpg.Connection
) -> None:
    await sql.execute("DELETE FROM projects")
    await sql.execute(FILL)
    await sql.execute(RUNS)
    await sql.execute(CLOSED)
    await sql.execute("VACUUM ANALYZE outbox_dead_letters")
    (letter,) = await sql.fetchrow("SELECT min(id) FROM outbox_dead_letters WHERE id > 0")
    with remembered(engine) as sent:
        async with engine.connect() as connection:
            for selection in (Selection(), Selection(like=letter), Selection(state=None, ids=[letter])):
                assert await dead_letters.find(connection, selection)
            assert await find_groups(connection, Selection())
            await dead_letters.said_of(connection, letter)
        replays = Replays(events={letter: 7})
        await wait_for_replays(engine, replays, interrupted=asyncio.Event())
    statements = [
        *sent,
        (SUPERSEDE, ([letter, letter + 1],)),
        (str(CLOSE_OLDER), ()),
        (READ_FIRST, (1, 20, None)),
        (READ_FIRST, (1, 20, "c1")),
    ]
    for statement, parameters in statements:
        plan = "\n".join(row[0] for row in await sql.fetch(f"EXPLAIN {statement}", *parameters))
        # Of writers that were captured there are none here, and a table of no pages is read by no index.
        assert not re.search("Seq Scan on (?!captured_writers)", plan), f"{statement}\n{plan}"
