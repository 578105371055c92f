"""Freeze points between all steps of writing, claiming and applying, made from the database's side.

Triggers pass through advisory locks; whoever holds such a lock freezes every transaction that comes
to that point. The product knows nothing of it.
"""

import asyncio
import contextlib
import random
from collections.abc import AsyncIterator, Mapping, Sequence

import asyncpg

from tests.processes import HANG_SECONDS

SPACE = 4242  # the first half of the advisory locks' keys

# Where a transaction can be stopped. "before" and "after" are those of the statement, or of each of
# its rows; "commit" is the moment before the transaction commits. A BEFORE INSERT row trigger runs
# when the row's id has been drawn already.
POINTS = {
    "legacy row: before its change": "BEFORE INSERT OR UPDATE ON collections FOR EACH ROW",
    "legacy row: after its change": "AFTER INSERT OR UPDATE ON collections FOR EACH ROW",
    "event: id drawn, not inserted": "BEFORE INSERT ON outbox_events FOR EACH ROW",
    "event: inserted": "AFTER INSERT ON outbox_events FOR EACH ROW",
    "guard: claimed, before the guard": "BEFORE INSERT ON applied_versions FOR EACH STATEMENT",
    "guard: before one row": "BEFORE INSERT ON applied_versions FOR EACH ROW",
    "guard: after the guard": "AFTER INSERT OR UPDATE ON applied_versions FOR EACH STATEMENT",
    "target: before rows retire": "BEFORE DELETE ON project_collections FOR EACH STATEMENT",
    "target: before rows are written": "BEFORE INSERT ON project_collections FOR EACH STATEMENT",
    "target: after rows were written": "AFTER INSERT OR UPDATE ON project_collections FOR EACH STATEMENT",
    "acknowledge: before": "BEFORE DELETE ON outbox_events FOR EACH STATEMENT",
    "acknowledge: after": "AFTER DELETE ON outbox_events FOR EACH STATEMENT",
}
AT_COMMIT = {
    "commit: of a write": "AFTER INSERT ON outbox_events",
    "commit: of a batch": "AFTER DELETE ON outbox_events",
}
# Of backfills only: storms leave these alone.
OF_BACKFILL = "WHEN (current_setting('application_name') = 'collection-sync backfill')"
BACKFILL_POINTS = {
    "backfill: read, before its events": f"BEFORE INSERT ON outbox_events FOR EACH STATEMENT {OF_BACKFILL}",
    "backfill: events inserted": f"AFTER INSERT ON outbox_events FOR EACH STATEMENT {OF_BACKFILL}",
    "backfill: before the cursor moves": "BEFORE UPDATE OF cursor_key ON backfill_runs FOR EACH ROW",
    "backfill: cursor moved": "AFTER UPDATE OF cursor_key ON backfill_runs FOR EACH ROW",
}
# A chunk comes to these where it finds what is in sync and has no guard.
BACKFILL_GUARD_POINTS = {
    "backfill: before its guards": f"BEFORE INSERT ON applied_versions FOR EACH STATEMENT {OF_BACKFILL}",
    "backfill: guards inserted": f"AFTER INSERT ON applied_versions FOR EACH STATEMENT {OF_BACKFILL}",
}
BACKFILL_AT_COMMIT = {"commit: of a chunk": "AFTER UPDATE OF cursor_key ON backfill_runs"}
NUMBERS = {point: number for number, point in enumerate([*POINTS, *AT_COMMIT])}
GATE, GATE_NUMBER = "gate: a backfill's event of one collection", 200
BETWEEN_THE_SIDES, BETWEEN_NUMBER = "comparison: one side read, the other not", 300
BACKFILL_NUMBERS = {
    point: 100 + n for n, point in enumerate([*BACKFILL_POINTS, *BACKFILL_GUARD_POINTS, *BACKFILL_AT_COMMIT])
}

# Whoever stands there stands for as long as the test wants: no lock_timeout of its session ends that.
PASS_THROUGH = f"""
    CREATE OR REPLACE FUNCTION freeze_point() RETURNS trigger LANGUAGE plpgsql SET lock_timeout = 0 AS $$
    BEGIN
        PERFORM pg_advisory_lock_shared({SPACE}, TG_ARGV[0]::integer);
        PERFORM pg_advisory_unlock_shared({SPACE}, TG_ARGV[0]::integer);
        IF TG_LEVEL = 'STATEMENT' THEN RETURN NULL; END IF;
        RETURN coalesce(NEW, OLD);
    END $$
"""
# Each comparison looks at the clock three times, the second time between its sides.
SLOW_CLOCK = f"""
    CREATE FUNCTION public.clock_timestamp() RETURNS timestamptz LANGUAGE plpgsql SET lock_timeout = 0 AS $$
    DECLARE
        looks integer := coalesce(nullif(current_setting('test.looks', true), ''), '0')::integer + 1;
    BEGIN
        PERFORM set_config('test.looks', looks::text, false);
        IF looks = 2 THEN
            PERFORM pg_advisory_lock_shared({SPACE}, {BETWEEN_NUMBER});
            PERFORM pg_advisory_unlock_shared({SPACE}, {BETWEEN_NUMBER});
        END IF;
        RETURN pg_catalog.clock_timestamp();
    END $$
"""


async def install(connection: asyncpg.Connection) -> None:
    """Make every point freezable in this database, but for those of backfills."""
    await connection.execute(PASS_THROUGH)
    await _create_triggers(connection, POINTS, AT_COMMIT)


async def install_for_backfill(connection: asyncpg.Connection) -> None:
    """Make the points of backfills freezable in this database, and no others."""
    await connection.execute(PASS_THROUGH)
    await _create_triggers(connection, BACKFILL_POINTS | BACKFILL_GUARD_POINTS, BACKFILL_AT_COMMIT)


async def install_between_the_sides(connection: asyncpg.Connection) -> None:
    """Make BETWEEN_THE_SIDES freezable for the next comparison on this connection, which waits for it."""
    await connection.execute(SLOW_CLOCK)
    await connection.execute("SET search_path = public, pg_catalog; SET statement_timeout = 0")


async def install_gate(connection: asyncpg.Connection, collection_id: str) -> None:
    """Make GATE freezable: where a backfill comes to this collection, and nowhere else."""
    await connection.execute(PASS_THROUGH)
    await connection.execute(
        f"CREATE TRIGGER freeze_{GATE_NUMBER} BEFORE INSERT ON outbox_events FOR EACH ROW"
        f" WHEN (NEW.source = 'backfill' AND NEW.aggregate_id = '{collection_id}')"
        f" EXECUTE FUNCTION freeze_point({GATE_NUMBER})"
    )


async def _create_triggers(
    connection: asyncpg.Connection, points: Mapping[str, str], at_commit: Mapping[str, str]
) -> None:
    for point, where in points.items():
        number = _number(point)
        await connection.execute(
            f"CREATE TRIGGER freeze_{number} {where} EXECUTE FUNCTION freeze_point({number})"
        )
    for point, where in at_commit.items():
        number = _number(point)
        await connection.execute(
            f"CREATE CONSTRAINT TRIGGER freeze_{number} {where} DEFERRABLE INITIALLY DEFERRED"
            f" FOR EACH ROW EXECUTE FUNCTION freeze_point({number})"
        )


def _number(point: str) -> int:
    return (NUMBERS | BACKFILL_NUMBERS | {GATE: GATE_NUMBER, BETWEEN_THE_SIDES: BETWEEN_NUMBER})[point]


@contextlib.asynccontextmanager
async def frozen(connection: asyncpg.Connection, point: str) -> AsyncIterator[None]:
    """Stop whoever comes to this point until the block ends."""
    await connection.execute("SELECT pg_advisory_lock($1, $2)", SPACE, _number(point))
    try:
        yield
    finally:
        await connection.execute("SELECT pg_advisory_unlock($1, $2)", SPACE, _number(point))


async def arrived(connection: asyncpg.Connection, point: str, count: int = 1) -> None:
    """Wait until `count` transactions stand frozen at this point."""
    async with asyncio.timeout(HANG_SECONDS):
        while True:
            waiting = await connection.fetchval(
                "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND NOT granted"
                " AND database = (SELECT oid FROM pg_database WHERE datname = current_database())"
                " AND classid = $1 AND objid = $2",
                SPACE,
                _number(point),
            )
            if waiting >= count:
                return
            await asyncio.sleep(0.002)


async def weather(connection: asyncpg.Connection, points: Sequence[str], seed: int) -> None:
    """Freeze one point after another for 0 to 15 ms, at random, until cancelled."""
    dice = random.Random(seed)  # noqa: S311 - a storm that can be repeated
    while True:
        async with frozen(connection, dice.choice(points)):
            await asyncio.sleep(dice.uniform(0, 0.015))
        await asyncio.sleep(dice.uniform(0, 0.002))


async def cut_off(connection: asyncpg.Connection) -> None:
    """End the sessions that stand frozen, as PostgreSQL does when their process was killed."""
    await connection.execute(
        "SELECT pg_terminate_backend(pid, 60000) FROM pg_locks WHERE locktype = 'advisory' AND NOT granted"
        " AND database = (SELECT oid FROM pg_database WHERE datname = current_database()) AND classid = $1",
        SPACE,
    )


async def blocked(connection: asyncpg.Connection) -> bool:
    """Say whether a transaction waits for the end of another that wrote or locked the same row."""
    waiting: bool = await connection.fetchval(
        "SELECT count(*) > 0 FROM pg_locks JOIN pg_stat_activity USING (pid)"
        " WHERE datname = current_database() AND NOT granted AND locktype IN ('transactionid', 'tuple')"
    )
    return waiting


async def until_blocked(connection: asyncpg.Connection) -> None:
    """Wait until a transaction waits for another's row."""
    async with asyncio.timeout(HANG_SECONDS):
        while not await blocked(connection):
            await asyncio.sleep(0.002)
