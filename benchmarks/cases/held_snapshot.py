"""A worker's drain while a session holds a snapshot from before its first event until after its last."""

from collections.abc import Sequence

import asyncpg

from benchmarks.bench import Bench, Scale, require
from benchmarks.drains import drain, held_snapshot, logging_to_files, pile_up, require_drained
from benchmarks.figures import Beside, Figure
from benchmarks.legacy_rows import make_rows
from worker.main import arq_settings
from worker.vitals.snapshot_holders import held_snapshots

TARGET = 0.9  # of the speed without
MOST_ENTRIES = 25  # of the claim's index, walked over for each event that is claimed

# Index entries that claims came upon, dead ones included: with a snapshot held, they stay where they are.
ENTRIES = """
    SELECT idx_tup_read FROM pg_stat_user_indexes WHERE indexrelname = 'outbox_events_claim_order'
"""


async def measure(bench: Bench) -> Sequence[Figure]:
    """Take turns without and with a snapshot, for users' events and, in full, for a backfill's."""
    events = bench.choose(1_000, 60_000, 200_000)
    bench.facts.update(events=events)
    figures: list[Figure] = []
    async with bench.sql() as sql:
        await make_rows(sql, events)
        with logging_to_files(bench):
            for source in ("api", "backfill") if bench.scale is Scale.FULL else ("api",):
                figures += await _of_source(bench, sql, source, events)
    return figures


async def _of_source(bench: Bench, sql: asyncpg.Connection, source: str, events: int) -> Sequence[Figure]:
    free, held, entries = [], [], []
    for _ in range(bench.choose(1, 3)):
        await pile_up(sql, source)
        free.append(events / await drain(bench))
        await require_drained(sql)
        await pile_up(sql, source)
        before = await _entries(sql)
        async with held_snapshot(bench) as pid:
            held.append(events / await drain(bench))
            require(await _is_seen(bench, pid), "the worker sees who holds the snapshot")
        await require_drained(sql)
        entries.append((await _entries(sql) - before) / events)
        bench.say(f"{source}: {free[-1]:,.0f} events/s without, {held[-1]:,.0f} with a snapshot held")
    without = f"{source}, no snapshot held"
    return (
        Figure(without, "events/s", free),
        Figure(f"{source}, a snapshot held", "events/s", held, beside=[Beside(without, at_least=TARGET)]),
        Figure(f"{source}, entries walked over per event", "entries", entries, at_most=MOST_ENTRIES),
    )


async def _entries(sql: asyncpg.Connection) -> int:
    await sql.execute("SELECT pg_stat_clear_snapshot()")
    return int(await sql.fetchval(ENTRIES))


async def _is_seen(bench: Bench, pid: int) -> bool:
    engine = arq_settings(bench.settings)["ctx"]["engines"][1]
    holders = await held_snapshots(engine)
    await engine.dispose()
    return pid in {holder.pid for holder in holders}
