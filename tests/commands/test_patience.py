"""Commands that go on until they are ended wait for PostgreSQL, and say so once."""

import asyncio
import json
import signal
import subprocess
from collections.abc import AsyncIterator

import asyncpg
import pytest
from pydantic import SecretStr
from sqlalchemy.ext.asyncio import AsyncEngine

from deploy.local.postgres import Postgres
from shared.backfill_runs import BackfillOptions
from shared.postgres.database import create_engine
from shared.settings import Settings
from tests.backfill.driving import backfilled
from tests.commands.away import Way, way_to
from tests.dead_letters.test_replay import dead, replayed
from tests.draining import drain
from tests.forked import Forked
from tests.legacy_rows import seed, set_collection
from tests.processes import HANG_SECONDS, Running, environment, running
from worker.backfill.proof import wait_until_applied
from worker.command_line.console import stderr
from worker.dead_letters.replays import Replays, wait_for_replays

AWAY, BACK = "This goes on when it is back.", "PostgreSQL is back."


@pytest.fixture
async def way(postgres: Postgres, sql: asyncpg.Connection, database_url: str) -> AsyncIterator[Way]:
    await seed(sql)
    async with way_to(postgres, sql, database_url) as way:
        yield way


def verdicts(watching: Running) -> list[str]:
    return [json.loads(line)["verdict"] for line in watching.lines.copy() if line.startswith('{"run_id"')]


async def until_said(watching: Running, words: str) -> None:
    async with asyncio.timeout(HANG_SECONDS):
        while not any(words in line for line in watching.lines.copy()):
            assert watching.process.poll() is None, watching.output
            await asyncio.sleep(0.02)


async def until_passed(watching: Running, count: int) -> None:
    async with asyncio.timeout(HANG_SECONDS):
        while len(verdicts(watching)) < count:
            assert watching.process.poll() is None, watching.output
            await asyncio.sleep(0.02)


async def test_a_watch_goes_on_when_the_database_is_back(way: Way, redis_url: str) -> None:
    typed = ["-m", "worker.audit", "--watch", "--interval", "0.05", "--json"]
    with running(typed, environment(way.url, redis_url)) as watching:
        for _ in range(2):
            await until_passed(watching, len(verdicts(watching)) + 2)
            await way.close()
            await until_said(watching, AWAY)
            watching.lines.clear()
            way.open()
            await until_said(watching, BACK)
            assert not [line for line in watching.lines.copy() if AWAY in line]
        await until_passed(watching, 2)
        watching.signal(signal.SIGINT)
        assert await watching.exit_code() == 0


async def test_a_watch_that_is_ended_while_the_database_is_away_knows_nothing(
    way: Way, redis_url: str
) -> None:
    typed = ["-m", "worker.audit", "--watch", "--interval", "0.05"]
    with running(typed, environment(way.url, redis_url)) as watching:
        await until_said(watching, "  in sync  ")
        await way.close()
        await until_said(watching, AWAY)
        watching.signal(signal.SIGINT)
        assert await watching.exit_code() == 1


def test_a_watch_whose_results_nobody_reads_any_longer_ends_well(database_url: str) -> None:
    typed = ["-m", "worker.audit", "--watch", "--interval", "0.05"]
    watching = Forked(typed, environment(database_url, ""), stderr=subprocess.DEVNULL)
    assert watching.stdout is not None
    with watching.stdout as results:
        assert results.readline()
    assert watching.wait(HANG_SECONDS) == 0


@pytest.fixture
async def through(way: Way, settings: Settings) -> AsyncIterator[AsyncEngine]:
    theirs = settings.model_copy(update={"database_url": SecretStr(f"postgresql+asyncpg{way.url[10:]}")})
    engine = create_engine(
        theirs, application_name="collection-sync test", pool_size=2, statement_timeout_seconds=30
    )
    yield engine
    await engine.dispose()


async def test_who_waits_for_events_goes_on_when_the_database_is_back(
    way: Way,
    through: AsyncEngine,
    engine: AsyncEngine,
    sql: asyncpg.Connection,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    said: list[str] = []
    monkeypatch.setattr(stderr, "say", said.append)
    await set_collection(engine, "c1", "text")
    await sql.execute("DELETE FROM outbox_events")
    letter = await dead(engine, sql)
    run = await backfilled(engine, BackfillOptions())
    assert run.enqueued == 1
    replays = Replays(events=dict((await replayed(engine, letter)).replayed))
    interrupted = asyncio.Event()
    waiting = [
        asyncio.create_task(wait_until_applied(through, run, interrupted=interrupted)),
        asyncio.create_task(
            wait_for_replays(through, replays, interrupted=interrupted, on_stall=lambda _pending: None)
        ),
    ]
    await way.close()
    async with asyncio.timeout(HANG_SECONDS):
        while len(said) < len(waiting):
            assert not any(task.done() for task in waiting)
            await asyncio.sleep(0.02)
    await drain(engine)
    way.open()
    assert (await asyncio.gather(*waiting))[0] is True
    assert replays.events_that("applied") == list(replays.events.values())
    assert [line.endswith(AWAY) for line in said] == [True, True, False, False]
