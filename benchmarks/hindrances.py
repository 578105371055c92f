"""What hinders a worker that has much to apply: a snapshot that is held, poison events, its own log."""

import argparse
import asyncio
import json
import os
import statistics
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import ExitStack, asynccontextmanager, contextmanager, nullcontext
from dataclasses import asdict, dataclass
from pathlib import Path
from unittest import mock

import asyncpg
import uvloop

from benchmarks.backfill import EMPTY, FEWEST_ROWS, OWNER, ROWS, require
from deploy.local.errors import LocalError
from deploy.local.postgres import Postgres
from deploy.local.run import migrate
from shared.logs import configure_logging
from shared.settings import Settings, load_settings
from worker.main import arq_settings
from worker.snapshot_holders import held_snapshots

TARGETS = {"snapshot": 0.8, "poison": 0.5, "log": 0.9}  # of the speed without the hindrance
SOURCES = ("api", "backfill")
POISON_AMONG = 10_000
POISON_EVENTS = 20

DESCRIPTION = f"""\
Measure how fast a worker's drains apply a backlog while something hinders them, as a
ratio to the same without, in one run: a session that holds a snapshot, idle in a
REPEATABLE READ transaction from before the first event is applied until after the last;
{POISON_EVENTS} events of {POISON_AMONG:,}, evenly spread, that can never be applied; and the log, at its
default level, to stdout and to a file, against no line at all.

Starts PostgreSQL of its own (fsync on); DATABASE_URL is not looked at. The drains
are the product's, with its sessions, in this process; both kinds of lines go to files.
The repeats take turns: without, with; for live events, then for a backfill's. Each run
must leave no event, every other one in the target as it is in the legacy table, and
the poison as dead letters; the worker must see who holds the snapshot."""

EPILOG = f"""\
exit status: 0 when the ratios are >= {TARGETS["snapshot"]} beside a snapshot,
{TARGETS["poison"]} with poison and {TARGETS["log"]} with a log; 1 when not; 2 on wrong usage or when it
could not be measured."""

APPEND = """
    INSERT INTO outbox_events (aggregate_id, event_type, source, payload)
    SELECT collection_id, 'collection.created', $1, jsonb_build_object('project_id', project_id,
        'research_context', description, 'created_at', created_at, 'updated_at', updated_at)
    FROM (SELECT * FROM collections LIMIT $2) AS chosen
"""
POISON = """
    UPDATE outbox_events SET payload = payload || '{"created_at": "not a time"}'
    WHERE (id - (SELECT min(id) FROM outbox_events)) % $1 = $1 / 2
"""
DIFFERENT = """
    SELECT count(*)
    FROM collections AS legacy
    JOIN project_collections AS target USING (project_id, collection_id)
    WHERE (legacy.description, legacy.created_at, legacy.updated_at)
        IS DISTINCT FROM (target.research_context, target.created_at, target.updated_at)
"""


@dataclass(frozen=True)
class Lane:
    """What was measured of one kind of events; seconds are medians, the ratio is of pairs of turns."""

    hindrance: str
    source: str
    events: int
    free_events_a_second: int
    hindered_events_a_second: int
    ratio: float


@dataclass(frozen=True)
class Report:
    """What was measured."""

    lanes: list[Lane]
    server: str

    @property
    def misses(self) -> list[str]:
        """Name the targets that were not met."""
        return [
            f"{lane.hindrance}, {lane.source} >= {TARGETS[lane.hindrance]}"
            for lane in self.lanes
            if lane.ratio < TARGETS[lane.hindrance]
        ]


@asynccontextmanager
async def snapshot(url: str) -> AsyncIterator[int]:
    """Hold one, idle in a transaction; yields the session's process id."""
    holder = await asyncpg.connect(url, server_settings={"application_name": "left open"})
    try:
        await holder.execute("BEGIN ISOLATION LEVEL REPEATABLE READ; SELECT 1 FROM users")
        yield holder.get_server_pid()
    finally:
        await holder.close()


@contextmanager
def silence() -> Iterator[None]:
    """Let no drain write a line."""
    with mock.patch("worker.batch_report.log_batch"):
        yield


async def drained(settings: Settings) -> float:
    """Return the seconds that a worker's drains take for everything that is pending."""
    context = arq_settings(settings)["ctx"]
    began = time.perf_counter()
    await context["drainer"].drain("sweep")
    seconds = time.perf_counter() - began
    await context["duties"].stop()  # the process leaves; else the next one would be cautious
    for engine in context["engines"]:
        await engine.dispose()
    return seconds


async def is_seen(settings: Settings, pid: int) -> bool:
    """Say whether a worker sees that this session holds a snapshot."""
    engine = arq_settings(settings)["ctx"]["engines"][1]
    holders = await held_snapshots(engine)
    await engine.dispose()
    return pid in {holder.pid for holder in holders}


async def free_turn(settings: Settings, url: str, source: str, events: int, hindrance: str) -> float:
    """Return the seconds of a turn that lacks this hindrance."""
    with silence() if hindrance == "log" else nullcontext():
        return await turn(settings, url, source, events, None)


async def turn(settings: Settings, url: str, source: str, events: int, hindrance: str | None) -> float:
    """Append so many events, apply them, check, and return the seconds.

    Raises:
        LocalError: it was not done right.

    """
    sql = await asyncpg.connect(url)
    try:
        await sql.execute(EMPTY)
        await sql.execute("DELETE FROM outbox_dead_letters")
        await sql.execute(APPEND, source, events)
        dead = 0
        if hindrance == "poison":
            await sql.execute(POISON, events // POISON_EVENTS)
            dead = POISON_EVENTS
        await sql.execute("VACUUM ANALYZE")
        await sql.execute("CHECKPOINT")
        async with snapshot(url) if hindrance == "snapshot" else nullcontext() as pid:
            seconds = await drained(settings)
            require(pid is None or await is_seen(settings, pid), "the worker sees who holds the snapshot")
        await require_done(sql, events, dead)
        return seconds
    finally:
        await sql.close()


async def require_done(sql: asyncpg.Connection, events: int, dead: int) -> None:
    """Raise a LocalError unless every event came to its end."""
    require(await sql.fetchval("SELECT count(*) FROM outbox_events") == 0, "every event was settled")
    require(await sql.fetchval("SELECT count(*) FROM project_collections") == events - dead, "all are there")
    require(await sql.fetchval("SELECT count(*) FROM outbox_dead_letters") == dead, "the poison is set aside")
    require(await sql.fetchval(DIFFERENT) == 0, "the target shows what the legacy table holds")


async def measure(
    settings: Settings, only: Sequence[str], events: int, repeats: int, say: Callable[[str], None]
) -> Report:
    """Measure these hindrances on an empty database.

    Raises:
        LocalError: something did not do its work.

    """
    url = settings.database_url.get_secret_value().replace("+asyncpg", "")
    sql = await asyncpg.connect(url)
    await sql.execute(OWNER)
    await sql.execute(ROWS, max(events, POISON_AMONG))
    server = await sql.fetchval("SHOW server_version")
    await sql.close()
    lanes = []
    for hindrance in only:
        of_events = POISON_AMONG if hindrance == "poison" else events
        for source in SOURCES:
            turns = []
            for _ in range(repeats):
                free = await free_turn(settings, url, source, of_events, hindrance)
                turns.append((free, await turn(settings, url, source, of_events, hindrance)))
                say(f"{hindrance}, {source}: {turns[-1][0]:.2f} s without, {turns[-1][1]:.2f} s with")
            lanes.append(lane_of(hindrance, source, of_events, turns))
    return Report(lanes, server)


def lane_of(hindrance: str, source: str, events: int, turns: list[tuple[float, float]]) -> Lane:
    """Take the medians of the turns; the ratio's is of pairs."""
    free, hindered = (statistics.median(seconds) for seconds in zip(*turns, strict=True))
    ratio = statistics.median(free / hindered for free, hindered in turns)
    return Lane(hindrance, source, events, round(events / free), round(events / hindered), round(ratio, 3))


def as_table(report: Report) -> str:
    """Lay the report out for a terminal."""
    lines = [
        f"  {lane.hindrance:<10}{lane.source:<10}{lane.events:>9,} events"
        f"{lane.free_events_a_second:>10,}/s without"
        f"{lane.hindered_events_a_second:>10,}/s with    ratio {lane.ratio}"
        for lane in report.lanes
    ]
    verdict = f"missed: {', '.join(report.misses)}" if report.misses else "all targets met"
    return "\n".join([*lines, f"on {report.server}", verdict])


def main() -> int:
    """Measure, print and return the exit status."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.hindrances",
        description=DESCRIPTION,
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--only", choices=TARGETS, action="append", help="measure this one; may be repeated")
    parser.add_argument(
        "--events", type=int, default=200_000, help="of each turn but those with poison (default: 200000)"
    )
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

    only = arguments.only or tuple(TARGETS)
    with ExitStack() as stack:
        directory = Path(stack.enter_context(tempfile.TemporaryDirectory(ignore_cleanup_errors=True)))
        lines = stack.enter_context((directory / "stdout").open("w"))
        configure_logging("worker", directory / "worker.log", lines)
        service = stack.enter_context(Postgres(directory / "postgresql"))
        os.environ[service.url_variable] = service.url
        os.environ.setdefault("REDIS_URL", "redis://127.0.0.1:1")  # none is asked
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            runner.run(migrate())
            return runner.run(
                measure(load_settings(Settings), only, arguments.events, arguments.repeats, say)
            )


if __name__ == "__main__":
    sys.exit(main())
