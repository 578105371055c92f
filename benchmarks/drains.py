"""A backlog of one event for each legacy row, applied by the product's own drains in this process."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager

import asyncpg
import structlog

from benchmarks.bench import Bench, require, timed
from benchmarks.legacy_rows import differing, empty, tidy
from shared.logs.setup import configure_logging
from worker.main import arq_settings

DRAIN_TIMEOUT_SECONDS = 3_600
POLL_SECONDS = 0.02

IS_PENDING = "SELECT EXISTS (SELECT FROM outbox_events WHERE id = $1)"
IS_ANY_PENDING = "SELECT EXISTS (SELECT FROM outbox_events)"
APPEND = """
    INSERT INTO outbox_events (aggregate_id, event_type, source, payload)
    SELECT collection_id, 'collection.created', $1, jsonb_build_object('project_id', project_id,
        'research_context', description, 'created_at', created_at, 'updated_at', updated_at)
    FROM collections
"""


async def pile_up(sql: asyncpg.Connection, source: str) -> None:
    """Empty the target, and let an event of this source wait for each legacy row."""
    await empty(sql)
    await sql.execute(APPEND, source)
    await tidy(sql)


async def drain(bench: Bench) -> float:
    """Return the seconds that a worker's drains take for everything that is pending."""
    context = arq_settings(bench.settings)["ctx"]
    seconds = await timed(context["drainer"].drain("sweep"))
    await context["duties"].stop()  # the process leaves; else the next one would be cautious
    for engine in context["engines"]:
        await engine.dispose()
    return seconds


async def drained_by_others(sql: asyncpg.Connection) -> None:
    """Wait until no event is pending; any but the newest is looked for last, since that is dear before."""
    newest = await sql.fetchval("SELECT max(id) FROM outbox_events")
    async with asyncio.timeout(DRAIN_TIMEOUT_SECONDS):
        while await sql.fetchval(IS_PENDING, newest) or await sql.fetchval(IS_ANY_PENDING):  # noqa: ASYNC110 - others
            await asyncio.sleep(POLL_SECONDS)


async def require_drained(sql: asyncpg.Connection, dead: int = 0) -> None:
    """Make sure that every event came to its end, `dead` of them as dead letters.

    Raises:
        LocalError: it was not so.

    """
    require(await sql.fetchval("SELECT count(*) FROM outbox_events") == 0, "every event was settled")
    letters = await sql.fetchval("SELECT count(*) FROM outbox_dead_letters")
    require(letters == dead, f"{dead} events were set aside, not {letters}")
    wrong = await differing(sql)
    require(wrong == dead, f"{dead} rows of the target differ from the legacy table, not {wrong}")


@contextmanager
def logging_to_files(bench: Bench) -> Iterator[None]:
    """Let this process log as a worker does by default, to what is stdout otherwise and to a file."""
    with (bench.directory / "stdout").open("w") as stream:
        configure_logging("worker", bench.directory / "worker.log", stream)
        try:
            yield
        finally:
            structlog.reset_defaults()


@asynccontextmanager
async def held_snapshot(bench: Bench) -> AsyncIterator[int]:
    """Hold a snapshot, idle in a transaction, as a session that was left open does; yields its process id."""
    async with bench.sql() as holder:
        await holder.execute("BEGIN ISOLATION LEVEL REPEATABLE READ; SELECT 1 FROM users")
        yield holder.get_server_pid()
