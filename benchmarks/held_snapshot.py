"""What a snapshot that somebody holds costs a worker that has much to apply."""

import argparse
import asyncio
import json
import os
import statistics
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Callable
from contextlib import ExitStack, asynccontextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

import asyncpg
import structlog
import uvloop

from benchmarks.backfill import EMPTY, FEWEST_ROWS, OWNER, ROWS, require
from deploy.local.errors import LocalError
from deploy.local.postgres import Postgres
from deploy.local.run import migrate
from shared.settings import Settings, load_settings
from worker.drainer import Drainer
from worker.main import arq_settings
from worker.snapshot_holders import held_snapshots

TARGET = 0.8  # of the speed without it
SOURCES = ("api", "backfill")

DESCRIPTION = """\
Measure how fast a worker's drains apply a backlog while somebody holds a snapshot,
as a ratio to the same without, in one run.

Starts PostgreSQL of its own (fsync on); DATABASE_URL is not looked at. The drains
are the product's, with its sessions, in this process; their log lines go to a file.
The holder sits idle in a REPEATABLE READ transaction, in the same database, from before
the first event is applied until after the last. The repeats take turns: without, with;
for live events, then for a backfill's. Each run must leave no event, and a target
that equals the legacy table; the worker must see who holds the snapshot."""

EPILOG = f"""\
exit status: 0 when both ratios are >= {TARGET}; 1 when not; 2 on wrong usage or when
it could not be measured."""

APPEND = """
    INSERT INTO outbox_events (aggregate_id, event_type, source, payload)
    SELECT collection_id, 'collection.created', $1, jsonb_build_object('project_id', project_id,
        'research_context', description, 'created_at', created_at, 'updated_at', updated_at)
    FROM collections
"""
DIFFERENT = """
    SELECT count(*)
    FROM collections AS legacy
    FULL JOIN project_collections AS target USING (project_id, collection_id)
    WHERE (legacy.description, legacy.created_at, legacy.updated_at)
        IS DISTINCT FROM (target.research_context, target.created_at, target.updated_at)
"""


@dataclass(frozen=True)
class Lane:
    """What was measured of one kind of events; seconds are medians, the ratio is of pairs of turns."""

    source: str
    free_events_a_second: int
    held_events_a_second: int
    ratio: float


@dataclass(frozen=True)
class Report:
    """What was measured."""

    events: int
    lanes: list[Lane]
    server: str

    @property
    def misses(self) -> list[str]:
        """Name the targets that were not met."""
        return [f"{lane.source} >= {TARGET}" for lane in self.lanes if lane.ratio < TARGET]


@asynccontextmanager
async def snapshot(url: str) -> AsyncIterator[int]:
    """Hold one, idle in a transaction; yields the session's process id."""
    holder = await asyncpg.connect(url, server_settings={"application_name": "left open"})
    try:
        await holder.execute("BEGIN ISOLATION LEVEL REPEATABLE READ; SELECT 1 FROM users")
        yield holder.get_server_pid()
    finally:
        await holder.close()


async def drained(settings: Settings) -> float:
    """Return the seconds that a worker's drains take for everything that is pending."""
    context = arq_settings(settings)["ctx"]
    drainer = Drainer(context["engines"][0])
    began = time.perf_counter()
    await drainer.drain("sweep")
    seconds = time.perf_counter() - began
    for engine in context["engines"]:
        await engine.dispose()
    return seconds


async def is_seen(settings: Settings, pid: int) -> bool:
    """Say whether a worker sees that this session holds a snapshot."""
    engine = arq_settings(settings)["ctx"]["engines"][1]
    holders = await held_snapshots(engine)
    await engine.dispose()
    return pid in {holder.pid for holder in holders}


async def turn(settings: Settings, url: str, source: str, *, held: bool) -> float:
    """Append an event for each collection, apply them, check, and return the seconds.

    Raises:
        LocalError: it was not done right.

    """
    sql = await asyncpg.connect(url)
    try:
        await sql.execute(EMPTY)
        await sql.execute(APPEND, source)
        await sql.execute("VACUUM ANALYZE")
        await sql.execute("CHECKPOINT")
        if held:
            async with snapshot(url) as pid:
                seconds = await drained(settings)
                require(await is_seen(settings, pid), "the worker sees who holds the snapshot")
        else:
            seconds = await drained(settings)
        require(await sql.fetchval("SELECT count(*) FROM outbox_events") == 0, "every event was settled")
        require(await sql.fetchval(DIFFERENT) == 0, "the target equals the legacy table")
        return seconds
    finally:
        await sql.close()


async def measure(settings: Settings, events: int, repeats: int, say: Callable[[str], None]) -> Report:
    """Measure everything on an empty database.

    Raises:
        LocalError: something did not do its work.

    """
    url = settings.database_url.get_secret_value().replace("+asyncpg", "")
    sql = await asyncpg.connect(url)
    await sql.execute(OWNER)
    await sql.execute(ROWS, events)
    server = await sql.fetchval("SHOW server_version")
    await sql.close()
    lanes = []
    for source in SOURCES:
        turns = []
        for _ in range(repeats):
            free = await turn(settings, url, source, held=False)
            turns.append((free, await turn(settings, url, source, held=True)))
            say(f"{source}: {turns[-1][0]:.2f} s without, {turns[-1][1]:.2f} s with")
        free, held = (statistics.median(seconds) for seconds in zip(*turns, strict=True))
        ratio = statistics.median(free / held for free, held in turns)
        lanes.append(Lane(source, round(events / free), round(events / held), round(ratio, 3)))
    return Report(events, lanes, server)


def as_table(report: Report) -> str:
    """Lay the report out for a terminal."""
    lines = [
        f"  {lane.source:<10}{lane.free_events_a_second:>10,}/s without"
        f"{lane.held_events_a_second:>10,}/s with    ratio {lane.ratio}"
        for lane in report.lanes
    ]
    verdict = f"missed: {', '.join(report.misses)}" if report.misses else "all targets met"
    return "\n".join([f"{report.events:,} events, a snapshot held", *lines, f"on {report.server}", verdict])


def main() -> int:
    """Measure, print and return the exit status."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.held_snapshot",
        description=DESCRIPTION,
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--events", type=int, default=200_000, help="default: 200000")
    parser.add_argument("--repeats", type=int, default=3, help="turns of each (default: 3)")
    parser.add_argument("--json", action="store_true", help="print one JSON object instead of the table")
    arguments = parser.parse_args()
    if arguments.events < FEWEST_ROWS or arguments.repeats < 1:
        parser.error(f"needs {FEWEST_ROWS} events and one repeat at least")
    try:
        report = run(arguments)
    except LocalError as error:
        print(error, file=sys.stderr)
        return 2
    print(json.dumps(asdict(report) | {"missed": report.misses}) if arguments.json else as_table(report))
    return 1 if report.misses else 0


def run(arguments: argparse.Namespace) -> Report:
    """Start what is needed, and measure on it."""

    def say(line: str) -> None:
        print(line, file=sys.stderr, flush=True)

    with ExitStack() as stack:
        directory = Path(stack.enter_context(tempfile.TemporaryDirectory(ignore_cleanup_errors=True)))
        lines = stack.enter_context((directory / "worker.log").open("w"))
        structlog.configure(
            processors=[structlog.processors.add_log_level, structlog.processors.JSONRenderer()],
            logger_factory=structlog.WriteLoggerFactory(lines),
        )
        service = stack.enter_context(Postgres(directory / "postgresql"))
        os.environ[service.url_variable] = service.url
        os.environ.setdefault("REDIS_URL", "redis://127.0.0.1:1")  # none is asked
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            runner.run(migrate())
            return runner.run(measure(load_settings(Settings), arguments.events, arguments.repeats, say))


if __name__ == "__main__":
    sys.exit(main())
