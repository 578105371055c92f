"""How long a write takes from its commit until project_collections shows it, with one real worker."""

import argparse
import asyncio
import contextlib
import json
import os
import platform
import statistics
import sys
import tempfile
import time
import uuid
from asyncio.subprocess import Process
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Coroutine, Sequence
from contextlib import AsyncExitStack, ExitStack, asynccontextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TypeVar

import uvloop
from redis.asyncio import Redis
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine

from benchmarks.observer import Observer
from benchmarks.writers import Writers
from deploy.local.errors import LocalError
from deploy.local.programs import launch
from deploy.local.run import migrate, start_services
from shared.database import create_engine
from shared.doorbell import REDIS_ERRORS, Doorbell, open_redis
from shared.settings import Settings, SettingsError, load_settings

P50_TARGET_MS = 5.0
P99_TARGET_MS = 25.0
IDLE_CPU_TARGET_PERCENT = 1.0

WARM_UP_SECONDS = 2
IDLE_SECONDS = 10
SETTLING_SECONDS = 2  # between load and idleness
PATIENCE_SECONDS = 30
FEWEST_WRITES = 100

DESCRIPTION = """\
Measure the time from a write's commit until project_collections shows it.

Starts PostgreSQL (fsync on), Valkey and one worker. Writers in this process
begin transactions at a steady rate, whatever became of the earlier ones: a
legacy row is inserted (60 %), updated (30 %) or deleted (10 %), its event
appended, the doorbell pressed after the commit. A writer takes the time when
its COMMIT has returned; the worker stamps its log line when the COMMIT of the
batch has returned, by the same clock. Nothing asks the database meanwhile. At
the end every row of project_collections must be what the legacy row says. The
first two seconds are not counted. Before and after, the worker idles for ten seconds each;
what the machine is busy with then belongs to others, and disturbs."""

EPILOG = """\
environment:
  DATABASE_URL     use this PostgreSQL, migrate it, write to a project of its own
                   and delete that project afterwards
  REDIS_URL        use this Redis or Valkey

exit status: 0 when p50 <= 5 ms, p99 <= 25 ms and the idle worker takes <= 1 % of
a core; 1 when not; 2 on wrong usage or when it could not be measured."""

BEGIN = (
    """
    INSERT INTO users (user_id, username, email, first_name, last_name, category, role, institution,
        subject_area, how_heard_about_us)
    VALUES (:project_id, :project_id, :project_id, '', '', '', '', '', '', '')
    """,
    "INSERT INTO projects (project_id, project_name, owner_user_id) VALUES (:project_id, '', :project_id)",
)
CLEAN_UP = (
    "DELETE FROM applied_versions WHERE project_id = :project_id",
    "DELETE FROM collections WHERE project_id = :project_id",
    "DELETE FROM projects WHERE project_id = :project_id",
    "DELETE FROM users WHERE user_id = :project_id",
)

DIFFERENT = text("""
    SELECT count(*)
    FROM (SELECT * FROM collections WHERE project_id = :project_id AND is_active) AS legacy
    FULL JOIN (SELECT * FROM project_collections WHERE project_id = :project_id) AS target
        USING (collection_id)
    WHERE (legacy.description, legacy.updated_at)
        IS DISTINCT FROM (target.research_context, target.updated_at)
        OR legacy.project_id IS DISTINCT FROM target.project_id
""")

Result = TypeVar("Result")


@dataclass(frozen=True)
class Usage:
    """Processor time in percent of one core; None where there is no /proc to tell it."""

    worker: float | None
    machine: float | None

    def __str__(self) -> str:
        known = [("unknown" if share is None else f"{share} %") for share in (self.worker, self.machine)]
        return f"{known[0]:>9}{known[1]:>16}"


@dataclass(frozen=True)
class Worker:
    """The worker's process and every line that it has logged so far."""

    process: Process
    lines: list[bytes]

    async def usage_during(self, work: Awaitable[Result]) -> tuple[Result, Usage]:
        """Return what the work returns, and what the worker and the whole machine took meanwhile."""
        before, began = self._ticks(), time.perf_counter()
        result = await work
        after, seconds = self._ticks(), time.perf_counter() - began
        if before is None or after is None:
            return result, Usage(None, None)
        percent = 100 / seconds / os.sysconf("SC_CLK_TCK")
        worker, machine = (round((b - a) * percent, 2) for a, b in zip(before, after, strict=True))
        return result, Usage(worker, machine)

    def _ticks(self) -> tuple[int, int] | None:
        """Return the clock ticks that the worker and all processes together have taken."""
        try:
            worker = Path(f"/proc/{self.process.pid}/stat").read_text().rpartition(")")[2].split()
            machine = Path("/proc/stat").read_text().split()
        except FileNotFoundError:
            return None
        user, nice, system, _idle, _waiting, *interrupts = map(int, machine[1:8])
        return int(worker[11]) + int(worker[12]), user + nice + system + sum(interrupts)

    def wakes(self) -> dict[str, float]:
        """Return which share of the batches was settled because of what, in percent."""
        logged = [json.loads(line) for line in self.lines]
        wakes = Counter(line["wake"] for line in logged if line["event"] == "batch_settled")
        return {wake: round(100 * n / wakes.total(), 1) for wake, n in wakes.most_common()}


@dataclass(frozen=True)
class Report:
    """What was measured. The machine's usage while the worker idles is that of its neighbours."""

    writes: int
    rate: int
    p50_ms: float
    p90_ms: float
    p95_ms: float
    p99_ms: float
    max_ms: float
    cpu_idle: Usage
    cpu_writing: Usage
    cpu_idle_again: Usage
    wakes_percent: dict[str, float]
    environment: dict[str, str]

    @property
    def misses(self) -> list[str]:
        """Name the targets that were not met."""
        idle = max(self.cpu_idle.worker or 0, self.cpu_idle_again.worker or 0)
        targets = {
            f"p50 <= {P50_TARGET_MS} ms": self.p50_ms <= P50_TARGET_MS,
            f"p99 <= {P99_TARGET_MS} ms": self.p99_ms <= P99_TARGET_MS,
            f"idle CPU <= {IDLE_CPU_TARGET_PERCENT} %": idle <= IDLE_CPU_TARGET_PERCENT,
        }
        return [target for target, is_met in targets.items() if not is_met]


@asynccontextmanager
async def working(observer: Observer) -> AsyncIterator[Worker]:
    """Run one worker for as long as the block, and let the observer read what it logs.

    Raises:
        LocalError: it did not begin, or what it was to do took too long; the message shows its last lines.

    """
    process = await launch("KILL", "worker")
    lines: list[bytes] = []
    began = asyncio.Event()

    async def read() -> None:
        while process.stdout is not None and (line := await process.stdout.readline()):
            lines.append(line)
            observer.read(line)
            began.set()

    reading = asyncio.create_task(read())
    try:
        async with asyncio.timeout(PATIENCE_SECONDS):
            await began.wait()
        yield Worker(process, lines)
    except TimeoutError:
        end = b"".join(lines[-10:]).decode(errors="replace")
        raise LocalError(f"The worker does not work. Its last lines:\n{end}") from None
    finally:
        with contextlib.suppress(ProcessLookupError):
            process.terminate()
        await process.wait()
        await reading


@asynccontextmanager
async def project(engine: AsyncEngine) -> AsyncIterator[str]:
    """Make a project to write in, and take it away with all that was written."""
    project_id = f"benchmark-{uuid.uuid4()}"
    async with engine.begin() as connection:
        for statement in BEGIN:
            await connection.execute(text(statement), {"project_id": project_id})
    try:
        yield project_id
    finally:
        async with engine.begin() as connection:
            for statement in CLEAN_UP:
                await connection.execute(text(statement), {"project_id": project_id})


@asynccontextmanager
async def background(*coroutines: Coroutine[None, None, None]) -> AsyncIterator[None]:
    """Run these for as long as the block."""
    tasks = [asyncio.create_task(coroutine) for coroutine in coroutines]
    try:
        yield
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks)


async def describe_environment(engine: AsyncEngine, redis: Redis) -> dict[str, str]:
    """Say on what it was measured."""
    async with engine.connect() as connection:
        postgresql = (await connection.execute(text("SHOW server_version"))).scalar_one()
        fsync = (await connection.execute(text("SHOW fsync"))).scalar_one()
    server = await redis.info("server")
    return {
        "python": platform.python_version(),
        "postgresql": f"{postgresql}, fsync {fsync}",
        "redis or valkey": server.get("valkey_version") or server["redis_version"],
        "cores": str(os.cpu_count()),
        "system": f"{platform.system()} {platform.machine()}",
    }


async def measure(settings: Settings, rate: int, seconds: float) -> Report:
    """Let the worker idle, then write, then let it idle again.

    Raises:
        LocalError: the worker does not work, or the writes did not become visible.

    """
    async with AsyncExitStack() as stack:
        engine = create_engine(
            settings, application_name="benchmark", pool_size=30, statement_timeout_seconds=30
        )
        stack.push_async_callback(engine.dispose)
        redis = await stack.enter_async_context(open_redis(settings.redis_url.get_secret_value()))
        environment = await describe_environment(engine, redis)
        project_id = await stack.enter_async_context(project(engine))
        doorbell, observer = Doorbell(redis), Observer()
        worker = await stack.enter_async_context(working(observer))
        await stack.enter_async_context(background(doorbell.run()))
        writers = Writers(engine, doorbell, observer, project_id)

        await asyncio.sleep(SETTLING_SECONDS)
        _, idle = await worker.usage_during(asyncio.sleep(IDLE_SECONDS))
        async with asyncio.timeout(WARM_UP_SECONDS + seconds + PATIENCE_SECONDS):
            await writers.write_steadily(rate, WARM_UP_SECONDS)
            latencies, writing = await worker.usage_during(writers.write_steadily(rate, seconds))
        await asyncio.sleep(SETTLING_SECONDS)
        _, idle_again = await worker.usage_during(asyncio.sleep(IDLE_SECONDS))

        await require_agreement(engine, project_id)
        hundredths = percentiles_ms(latencies)
        return Report(
            writes=len(latencies),
            rate=rate,
            p50_ms=hundredths[49],
            p90_ms=hundredths[89],
            p95_ms=hundredths[94],
            p99_ms=hundredths[98],
            max_ms=round(max(latencies) * 1000, 2),
            cpu_idle=idle,
            cpu_writing=writing,
            cpu_idle_again=idle_again,
            wakes_percent=worker.wakes(),
            environment=environment,
        )


async def require_agreement(engine: AsyncEngine, project_id: str) -> None:
    """Compare the project's rows of both tables.

    Raises:
        LocalError: they differ, so the figures are worth nothing.

    """
    async with engine.connect() as connection:
        different = (await connection.execute(DIFFERENT, {"project_id": project_id})).scalar_one()
    if different:
        raise LocalError(f"{different} rows of project_collections are not what the legacy rows say.")


def percentiles_ms(seconds: Sequence[float]) -> list[float]:
    """Return the 1st to 99th percentile."""
    return [round(cut * 1000, 2) for cut in statistics.quantiles(seconds, n=100, method="inclusive")]


def as_table(report: Report) -> str:
    """Lay the report out for a terminal."""
    figures = {
        "writes": report.writes,
        "p50": report.p50_ms,
        "p90": report.p90_ms,
        "p95": report.p95_ms,
        "p99": report.p99_ms,
        "max": report.max_ms,
    }
    wakes = ", ".join(f"{wake} {share} %" for wake, share in report.wakes_percent.items())
    environment = ", ".join(f"{name} {value}" for name, value in report.environment.items())
    return f"""\
commit -> visible in project_collections, ms, at {report.rate} writes/s
{"".join(f"{name:>9}" for name in figures)}
{"".join(f"{figure:>9}" for figure in figures.values())}

CPU, of one core      worker   whole machine
  idle             {report.cpu_idle}
  writing          {report.cpu_writing}
  idle again       {report.cpu_idle_again}

batches by what woke the worker: {wakes}
on {environment}
{"missed: " + ", ".join(report.misses) if report.misses else "all targets met"}"""


def main() -> int:
    """Measure, print and return the exit status."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.latency",
        description=DESCRIPTION,
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--seconds", type=int, default=20, help="how long to write (default: 20)")
    parser.add_argument("--rate", type=int, default=100, help="writes begun in a second (default: 100)")
    parser.add_argument("--json", action="store_true", help="print one JSON object instead of the table")
    arguments = parser.parse_args()
    if arguments.rate * arguments.seconds < FEWEST_WRITES:
        parser.error(f"percentiles need {FEWEST_WRITES} writes or more: raise --rate or --seconds")
    try:
        with ExitStack() as stack:
            directory = stack.enter_context(tempfile.TemporaryDirectory(ignore_cleanup_errors=True))
            start_services(Path(directory), stack)
            settings = load_settings(Settings)
            with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
                runner.run(migrate())
                report = runner.run(measure(settings, arguments.rate, arguments.seconds))
    except (LocalError, SettingsError, *REDIS_ERRORS) as error:
        print(error, file=sys.stderr)
        return 2
    print(json.dumps(asdict(report) | {"missed": report.misses}) if arguments.json else as_table(report))
    return 1 if report.misses else 0


if __name__ == "__main__":
    sys.exit(main())
