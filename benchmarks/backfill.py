"""What a backfill and an audit cost beside the bare SQL that they stand in for, and beside users' writes."""

import argparse
import asyncio
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, ExitStack, asynccontextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import asyncpg
import uvloop

from benchmarks.latency import background, describe_environment, percentiles_ms, project, working
from benchmarks.observer import Observer
from benchmarks.writers import Writers
from deploy.local.errors import LocalError
from deploy.local.postgres import Postgres
from deploy.local.programs import ROOT
from deploy.local.run import migrate
from deploy.local.valkey import Valkey
from shared.database import create_engine
from shared.doorbell import Doorbell, open_redis
from shared.settings import Settings, load_settings

BACKFILL_TARGET = 0.35  # of the speed of INSERT ... SELECT
AUDIT_TARGET = 0.5  # of the speed of SELECT count(*) ... FULL JOIN
LIVE_TARGET = 2.0  # times the idle p99
MEMORY_TARGET = 1.25  # times the peak at a hundredth of the rows

LIVE_ROWS = 200_000
LIVE_RATE = 50
IDLE_SECONDS = 20
WARM_UP_SECONDS = 3
PATIENCE_SECONDS = 600
FEWEST_ROWS = 100

DESCRIPTION = """\
Measure backfill and audit as ratios to the bare SQL of the same rows, in one run.

Starts PostgreSQL (fsync on), Valkey and one worker of its own; DATABASE_URL and
REDIS_URL are not looked at. The repeats take turns: a bare INSERT ... SELECT into
project_collections, then `python -m worker.backfill`, timed from its start until
its last event is applied; a second backfill, which must enqueue nothing; a bare
FULL JOIN that counts differences, then `python -m worker.audit`, by its own clock.
The peak memory of both commands is compared with that at a hundredth of the rows.
Then users write, 50 times a second: without and with a backfill of 200,000 rows."""

EPILOG = f"""\
exit status: 0 when backfill >= {BACKFILL_TARGET}, audit >= {AUDIT_TARGET}, live p99 <= {LIVE_TARGET} times
idle and memory <= {MEMORY_TARGET}; 1 when not; 2 on wrong usage or when it could not be measured."""

OWNER = """
    INSERT INTO users (user_id, username, email, first_name, last_name, category, role, institution,
        subject_area, how_heard_about_us)
    VALUES ('bulk', 'bulk', 'bulk', '', '', '', '', '', '', '');
    INSERT INTO projects (project_id, project_name, owner_user_id)
    SELECT 'bulk-' || number, '', 'bulk' FROM generate_series(0, 199) AS number
"""
ROWS = """
    INSERT INTO collections (collection_id, project_id, collection_name, description, created_by, is_active)
    SELECT gen_random_uuid()::text, 'bulk-' || number % 200, 'bulk', 'What collection ' || number || ' holds',
        'bulk', true
    FROM generate_series(1, $1::integer) AS number
"""
BARE_INSERT = """
    INSERT INTO project_collections (project_id, collection_id, research_context, created_at, updated_at)
    SELECT project_id, collection_id, description, created_at, updated_at FROM collections WHERE is_active
"""
BARE_COUNT = """
    SELECT count(*)
    FROM (SELECT * FROM collections WHERE is_active) AS legacy
    FULL JOIN project_collections AS target
        ON target.collection_id = legacy.collection_id AND target.project_id = legacy.project_id
    WHERE (legacy.description, legacy.created_at, legacy.updated_at)
        IS DISTINCT FROM (target.research_context, target.created_at, target.updated_at)
"""
EMPTY = "TRUNCATE project_collections, outbox_events, applied_versions, backfill_runs, audit_runs CASCADE"


@dataclass(frozen=True)
class Ran:
    """A command that ended: its JSON line, its duration, and the most memory it held."""

    result: dict[str, Any]
    seconds: float
    peak_mib: float


@dataclass(frozen=True)
class Repeat:
    """One turn of each, in seconds."""

    bare_insert: float
    backfill: float
    bare_count: float
    audit: float


@dataclass(frozen=True)
class Report:
    """What was measured; ratios are medians over the repeats."""

    rows: int
    insert_rows_a_second: float
    backfill_rows_a_second: float
    backfill_ratio: float
    audit_ratio: float
    backfill_peak_mib: float
    audit_peak_mib: float
    memory_ratio: float
    live_idle_p99_ms: float
    live_busy_p99_ms: float
    live_busy_rows_a_second: float
    live_ratio: float
    environment: dict[str, str]

    @property
    def misses(self) -> list[str]:
        """Name the targets that were not met."""
        targets = {
            f"backfill >= {BACKFILL_TARGET}": self.backfill_ratio >= BACKFILL_TARGET,
            f"audit >= {AUDIT_TARGET}": self.audit_ratio >= AUDIT_TARGET,
            f"memory <= {MEMORY_TARGET}": self.memory_ratio <= MEMORY_TARGET,
            f"live p99 <= {LIVE_TARGET} times idle": self.live_ratio <= LIVE_TARGET,
        }
        return [target for target, is_met in targets.items() if not is_met]


def run_command(*words: str) -> Ran:
    """Run `python -m` with these words and --json to its end.

    Raises:
        LocalError: it failed; the message shows the end of what it said.

    """
    began = time.perf_counter()
    with tempfile.TemporaryFile() as said:
        command = subprocess.Popen(  # noqa: S603 - our own commands
            [sys.executable, "-m", *words, "--json"], cwd=ROOT, stdout=subprocess.PIPE, stderr=said
        )
        out = command.stdout.read() if command.stdout else b""
        _, status, usage = os.wait4(command.pid, 0)
        command.returncode = os.waitstatus_to_exitcode(status)
        seconds = time.perf_counter() - began
        if command.returncode != 0:
            said.seek(0)
            raise LocalError(f"{' '.join(words)} failed:\n{said.read()[-2000:].decode(errors='replace')}")
    return Ran(json.loads(out), seconds, usage.ru_maxrss / 1024)


async def timed(work: Awaitable[object]) -> float:
    """Return the seconds that it takes."""
    began = time.perf_counter()
    await work
    return time.perf_counter() - began


async def settled(sql: asyncpg.Connection) -> None:
    """Wait until no event is pending."""
    async with asyncio.timeout(PATIENCE_SECONDS):
        while await sql.fetchval("SELECT EXISTS (SELECT FROM outbox_events)"):  # noqa: ASYNC110 - another process
            await asyncio.sleep(0.02)


async def empty(sql: asyncpg.Connection) -> None:
    """Make the target and our tables as they were before the first run."""
    await sql.execute(EMPTY)
    await sql.execute("VACUUM ANALYZE")
    await sql.execute("CHECKPOINT")


async def backfill(sql: asyncpg.Connection) -> tuple[Ran, float]:
    """Run a backfill; return it, and the seconds from its start until its last event was applied."""
    began = time.perf_counter()
    ran = await asyncio.to_thread(run_command, "worker.backfill")
    await settled(sql)
    return ran, time.perf_counter() - began


def require(fact: object, what: str) -> None:
    """Make sure that figures are of work that was done right.

    Raises:
        LocalError: it was not, so the figures are worth nothing.

    """
    if not fact:
        raise LocalError(f"Not so: {what}.")


async def repeat(sql: asyncpg.Connection, rows: int) -> tuple[Repeat, Ran, Ran]:
    """Take one turn of each, and check that each did its work."""
    await empty(sql)
    bare_insert = await timed(sql.execute(BARE_INSERT))
    await empty(sql)
    first, seconds = await backfill(sql)
    counts = [first.result[name] for name in ("processed", "enqueued", "skipped")]
    require(counts == [rows, rows, 0], f"every row was enqueued: {counts}")
    again, _ = await backfill(sql)
    require(again.result["enqueued"] == 0, "a second backfill enqueues nothing")
    await sql.execute("VACUUM ANALYZE")
    bare_count = await timed(sql.fetchval(BARE_COUNT))
    audit = await asyncio.to_thread(run_command, "worker.audit")
    require(audit.result["compared"] == rows and audit.result["verdict"] == "in_sync", "the audit is clean")
    return Repeat(bare_insert, seconds, bare_count, audit.result["duration_seconds"]), first, audit


async def during_backfill(sql: asyncpg.Connection, writers: Writers) -> tuple[list[float], Ran, float]:
    """Write steadily until a backfill is applied; return the latencies, the backfill and its seconds."""
    filling = asyncio.create_task(backfill(sql))
    latencies: list[float] = []
    while not filling.done():
        latencies += await writers.write_steadily(LIVE_RATE, 1)
    ran, seconds = await filling
    return latencies, ran, seconds


@asynccontextmanager
async def writing(settings: Settings) -> AsyncIterator[Writers]:
    """Offer users who write to a project of their own, seen by one worker."""
    async with AsyncExitStack() as stack:
        engine = create_engine(
            settings, application_name="benchmark", pool_size=20, statement_timeout_seconds=30
        )
        stack.push_async_callback(engine.dispose)
        redis = await stack.enter_async_context(open_redis(settings.redis_url.get_secret_value()))
        project_id = await stack.enter_async_context(project(engine))
        doorbell, observer = Doorbell(redis), Observer()
        await stack.enter_async_context(working(observer))
        await stack.enter_async_context(background(doorbell.run()))
        yield Writers(engine, doorbell, observer, project_id)


async def measure(settings: Settings, rows: int, repeats: int, say: Callable[[str], None]) -> Report:
    """Measure everything on an empty database.

    Raises:
        LocalError: something did not do its work.

    """
    engine = create_engine(settings, application_name="benchmark", pool_size=1, statement_timeout_seconds=600)
    async with open_redis(settings.redis_url.get_secret_value()) as redis:
        environment = await describe_environment(engine, redis)
    await engine.dispose()
    sql = await asyncpg.connect(settings.database_url.get_secret_value().replace("+asyncpg", ""))
    try:
        async with writing(settings) as writers:
            await sql.execute(OWNER)
            small = await at_size(sql, rows // 100, 1, say)
            large = await at_size(sql, rows, repeats, say)
            idle, busy, live_backfill = await beside_users(sql, writers, say)
    finally:
        await sql.close()
    turns = [turn for turn, _, _ in large]
    backfill_peak, audit_peak = peaks_mib(large)
    growth = [
        at_large / at_small for at_large, at_small in zip(peaks_mib(large), peaks_mib(small), strict=True)
    ]
    backfill_seconds = statistics.median(turn.backfill for turn in turns)
    return Report(
        rows=rows,
        insert_rows_a_second=round(rows / statistics.median(turn.bare_insert for turn in turns)),
        backfill_rows_a_second=round(rows / backfill_seconds),
        backfill_ratio=round(statistics.median(turn.bare_insert / turn.backfill for turn in turns), 3),
        audit_ratio=round(statistics.median(turn.bare_count / turn.audit for turn in turns), 3),
        backfill_peak_mib=round(backfill_peak, 1),
        audit_peak_mib=round(audit_peak, 1),
        memory_ratio=round(max(growth), 3),
        live_idle_p99_ms=percentiles_ms(idle)[98],
        live_busy_p99_ms=percentiles_ms(busy)[98],
        live_busy_rows_a_second=round(LIVE_ROWS / live_backfill),
        live_ratio=round(percentiles_ms(busy)[98] / percentiles_ms(idle)[98], 2),
        environment=environment,
    )


def peaks_mib(turns: list[tuple[Repeat, Ran, Ran]]) -> tuple[float, float]:
    """Return the most memory that any of the backfills, and any of the audits, held."""
    return max(ran.peak_mib for _, ran, _ in turns), max(ran.peak_mib for _, _, ran in turns)


async def at_size(
    sql: asyncpg.Connection, rows: int, repeats: int, say: Callable[[str], None]
) -> list[tuple[Repeat, Ran, Ran]]:
    """Take the turns at this number of rows."""
    await sql.execute("TRUNCATE collections CASCADE")
    await sql.execute(ROWS, rows)
    turns = []
    for _ in range(repeats):
        turns.append(await repeat(sql, rows))
        say(f"{rows} rows: {asdict(turns[-1][0])}")
    return turns


async def beside_users(
    sql: asyncpg.Connection, writers: Writers, say: Callable[[str], None]
) -> tuple[list[float], list[float], float]:
    """Return users' latencies without and with a backfill, and the seconds that it took."""
    await sql.execute("TRUNCATE collections CASCADE")
    await sql.execute(ROWS, LIVE_ROWS)
    await empty(sql)
    await writers.write_steadily(LIVE_RATE, WARM_UP_SECONDS)
    idle = await writers.write_steadily(LIVE_RATE, IDLE_SECONDS / 2)
    busy, _, seconds = await during_backfill(sql, writers)
    idle += await writers.write_steadily(LIVE_RATE, IDLE_SECONDS / 2)
    say(f"users' p50, p99: idle {percentiles_ms(idle)[49::49]}, busy {percentiles_ms(busy)[49::49]}")
    return idle, busy, seconds


def as_table(report: Report) -> str:
    """Lay the report out for a terminal."""
    environment = ", ".join(f"{name} {value}" for name, value in report.environment.items())
    return f"""\
{report.rows:,} rows
  bare INSERT ... SELECT       {report.insert_rows_a_second:>10,} rows/s
  backfill until applied       {report.backfill_rows_a_second:>10,} rows/s    ratio {report.backfill_ratio}
  audit / bare FULL JOIN                            ratio {report.audit_ratio}
  peak memory                  backfill {report.backfill_peak_mib} MiB, audit {report.audit_peak_mib} MiB, \
{report.memory_ratio} times that at a hundredth of the rows

users' writes at {LIVE_RATE}/s, commit -> applied, p99
  idle                         {report.live_idle_p99_ms:>10} ms
  during a backfill of {LIVE_ROWS:,} {report.live_busy_p99_ms:>10} ms    ratio {report.live_ratio}, \
{report.live_busy_rows_a_second:,} rows/s
on {environment}
{"missed: " + ", ".join(report.misses) if report.misses else "all targets met"}"""


def main() -> int:
    """Measure, print and return the exit status."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.backfill",
        description=DESCRIPTION,
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--rows", type=int, default=1_000_000, help="collections (default: 1000000)")
    parser.add_argument("--repeats", type=int, default=3, help="turns of each (default: 3)")
    parser.add_argument("--json", action="store_true", help="print one JSON object instead of the table")
    arguments = parser.parse_args()
    if arguments.rows < FEWEST_ROWS or arguments.repeats < 1:
        parser.error(f"needs {FEWEST_ROWS} rows and one repeat at least")
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
        for kind in (Postgres, Valkey):
            service = stack.enter_context(kind(directory / kind.name.lower()))
            os.environ[kind.url_variable] = service.url
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            runner.run(migrate())
            return runner.run(measure(load_settings(Settings), arguments.rows, arguments.repeats, say))


if __name__ == "__main__":
    sys.exit(main())
