"""What a row costs a backfill and an audit, as tables grow tenfold."""

from collections.abc import Mapping, Sequence

import asyncpg

from benchmarks.backfill_process import until
from benchmarks.bench import Bench, require
from benchmarks.cases.audit import audited
from benchmarks.cases.backfill import backfilled
from benchmarks.commands import unheard
from benchmarks.figures import Figure
from benchmarks.legacy_rows import differing, make_rows, tidy

# A backend reports what it read when it ends; this one reports at the end of its next statement.
ARE_ALONE = """
    SELECT pg_stat_force_next_flush()::text || count(*) = '0' FROM pg_stat_activity
    WHERE backend_type = 'client backend' AND datname = current_database() AND pid <> pg_backend_pid()
"""
# Autovacuum's share is in it.
COUNTERS = """
    SELECT pg_current_wal_lsn() - '0/0' AS log, wal_fpi AS whole, blks_hit AS hits, blks_read AS misses
    FROM pg_stat_database, pg_stat_wal WHERE datname = current_database()
"""
ON_DISK = """
    SELECT sum(pg_total_relation_size(name))
    FROM unnest(ARRAY['collections', 'project_collections', 'applied_versions']::regclass[]) AS name
"""


async def measure(bench: Bench) -> Sequence[Figure]:
    """For each size backfill the rows by a worker of its own, then audit what that made."""
    sizes = [bench.choose(100, 10_000) * 10**power for power in range(bench.choose(2, 3, 4))]
    figures: list[Figure] = []
    async with bench.sql() as sql:
        for rows in sizes:
            bench.say(f"{rows:,} rows")
            await make_rows(sql, rows)
            before = await counters(sql)
            async with unheard("worker"):
                _, seconds = await backfilled(sql, rows)
            figures += _of_size("backfill", rows, seconds, await counters(sql), before)
            require(await differing(sql) == 0, "the target shows every row")
            figures.append(_point("on disk", rows, "bytes/row", float(await sql.fetchval(ON_DISK)) / rows))
            await tidy(sql)
            before = await counters(sql)
            ran = await audited(rows, connections=1)
            seconds = float(ran.result["duration_seconds"])
            figures += _of_size("audit", rows, seconds, await counters(sql), before)
    return figures


async def counters(sql: asyncpg.Connection) -> Mapping[str, float]:
    """Return bytes of log, pages whole in it, and pages found in buffers or not, of all that has ended."""
    await until(lambda: sql.fetchval(ARE_ALONE), "every other session has ended")
    return {name: float(value) for name, value in (await sql.fetchrow(COUNTERS)).items()}


def _of_size(
    work: str, rows: int, seconds: float, after: Mapping[str, float], before: Mapping[str, float]
) -> Sequence[Figure]:
    spent = {name: (after[name] - before[name]) / rows for name in after}
    return (
        _point(f"{work}, time", rows, "s", seconds),
        _point(f"{work}, speed", rows, "rows/s", rows / seconds),
        _point(f"{work}, log", rows, "bytes/row", spent["log"]),
        _point(f"{work}, whole in the log", rows, "pages/row", spent["whole"]),
        _point(f"{work}, found in buffers", rows, "pages/row", spent["hits"]),
        _point(f"{work}, not in buffers", rows, "pages/row", spent["misses"]),
    )


def _point(curve: str, rows: int, unit: str, value: float) -> Figure:
    return Figure(f"{curve}, {rows:,} rows", unit, [value], curve=curve, rows=rows)
