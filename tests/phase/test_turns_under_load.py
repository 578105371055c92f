"""The phase turned there and back, and workers killed or away, while users write and list."""

import asyncio
import contextlib
import itertools
import statistics
import time
from collections.abc import AsyncIterator
from typing import NamedTuple

import asyncpg
import pytest
from sqlalchemy.ext.asyncio import AsyncEngine

from shared.phase.gates import Limits
from shared.phase.turn import advance, back
from tests.drift import drained, drift
from tests.phase.crowd import Api, Crowd
from tests.phase.moving import different, move, move_back
from tests.phase.moving import viewed as viewed  # noqa: PLC0414 - a fixture
from tests.processes import environment, free_port, running, running_api
from tests.race import freezing
from worker.capture.change import change

USERS = 5
BETWEEN_TURNS = 5  # answers, and looks at all lists
BYPASSED = 20  # writes at least
WORKER = ["-m", "worker"]
LONG = [pytest.mark.long, pytest.mark.timeout(1800)]
BYPASS = """
    UPDATE collections SET description = 'past the outbox ' || $1::integer, is_active = $1::integer % 5 <> 0,
        project_id = 'p' || 1 + $1::integer % 3
    WHERE collection_id = 'bypassed'
"""
INSERT = """
    INSERT INTO collections (collection_id, project_id, collection_name, created_by, is_active)
    VALUES ('bypassed', 'p1', 'name', 'owner', true)
"""


class Form(NamedTuple):
    """How many turns, users and kills, and at which rate all users together write; None: at once."""

    turns: int
    users: int
    kills: int
    writes_per_second: int | None = None


@pytest.fixture
async def crowd(
    viewed: asyncpg.Connection, engine: AsyncEngine, database_url: str, redis_url: str
) -> AsyncIterator[Crowd]:
    """Users of two APIs, not yet at work, in the phase before the turn."""
    await move_back(viewed)
    # No connection is closed just when it is used again.
    env = environment(database_url, redis_url, SHADOW_SHARE="1", UVICORN_TIMEOUT_KEEP_ALIVE="3600")
    async with contextlib.AsyncExitStack() as stack:
        apis = []
        for _ in range(2):
            port = free_port()
            process, _ = await stack.enter_async_context(running_api(env, port=port))
            apis.append(Api(process, port))
        looking = await asyncpg.connect(database_url)
        stack.push_async_callback(looking.close)
        yield Crowd(apis, engine, viewed, looking, env)


async def turn(engine: AsyncEngine) -> None:
    """Turn the phase there, or back, as the command and the console do."""
    async with engine.begin() as connection:
        if (await connection.exec_driver_sql("SELECT phase FROM migration_phase")).scalar() == "reads_moved":
            await back(connection, actor="test")
        else:
            await advance(connection, actor="test", limits=Limits(), reason="a test", forced=True)


@pytest.mark.slow
@pytest.mark.parametrize(
    "form", [Form(30, 5, 3), pytest.param(Form(500, 20, 20, 300), marks=LONG)], ids=["thirty", "five hundred"]
)
async def test_turns_there_and_back_fail_no_request_and_every_list_equals_collections(
    form: Form, crowd: Crowd, database_url: str
) -> None:
    """At a steady rate APIs are killed too: users have time to let come to its end what those had sent."""
    if form.writes_per_second is not None:
        crowd.each_seconds, crowd.look_seconds = form.users / form.writes_per_second, 0.05
    stormy = await asyncpg.connect(database_url)
    await freezing.install(stormy)
    batches = [point for point in freezing.NUMBERS if point.startswith(("guard", "target", "acknowledge"))]
    weather = asyncio.create_task(freezing.weather(stormy, batches, seed=form.turns))
    turned: list[float] = []
    began = time.monotonic()
    async with contextlib.AsyncExitStack() as processes:
        at_work = [processes.enter_context(running(WORKER, crowd.env)) for _ in range(2)]
        async with crowd.at_work(form.users):
            while len(turned) < form.turns or crowd.looks_at_unsettled <= form.turns:
                await turn(crowd.engine)
                turned.append(time.monotonic())
                await crowd.answers(BETWEEN_TURNS)
                if crowd.wrong:
                    break
                if len(turned) % (form.turns // form.kills) == 0:
                    await asyncio.to_thread(at_work.pop(0).kill)
                    at_work.append(processes.enter_context(running(WORKER, crowd.env)))
                    if form.writes_per_second is not None:
                        await crowd.kill_an_api(processes)
                    await crowd.answers(BETWEEN_TURNS)
        weather.cancel()
        await asyncio.wait([weather])
        await stormy.close()
        seconds = time.monotonic() - began
        await drained(crowd.sql)
    assert crowd.wrong[:3] == []
    assert await crowd.sql.fetchval("SELECT count(*) FROM phase_turns WHERE kind = 'fall_back'") == 0
    assert await crowd.sql.fetchval("SELECT count(*) FROM shadow_findings") == 0
    assert await drift(crowd.sql) == []
    tell(crowd, turned, seconds)


def tell(crowd: Crowd, turned: list[float], seconds: float) -> None:
    """Print what lists took, and of those the ones during which the phase was turned."""
    every = [took for _, took in crowd.seconds]
    during = [took for at, took in crowd.seconds if any(at <= moment <= at + took for moment in turned)]
    for name, took in (("all", every), ("during a turn", during)):
        if len(took) > 1:
            cut = statistics.quantiles(took, n=100)
            figures = [f"{value * 1000:.1f}" for value in (cut[49], cut[98], max(took))]
            print(f"lists, {name}: {len(took)}, p50 {figures[0]} p99 {figures[1]} most {figures[2]} ms")  # noqa: T201
    print(  # noqa: T201
        f"{crowd.writes / seconds:.0f} writes/s, {len(turned)} turns, {crowd.repeated} requests repeated,"
        f" {crowd.looks} looks, {crowd.looks_at_unsettled} of them at what was unsettled"
    )


@pytest.mark.slow
@pytest.mark.parametrize("seconds", [0, pytest.param(60, marks=LONG)], ids=["twenty writes", "a minute"])
async def test_while_no_worker_runs_and_reads_are_moved_every_list_equals_collections(
    seconds: int, crowd: Crowd
) -> None:
    """Users and a writer past the outbox, whom the capture sees, are at work all the while."""
    await change(crowd.engine, "append", interrupted=asyncio.Event(), watch=lambda _: None)
    await crowd.sql.execute(INSERT)
    with running(WORKER, crowd.env):
        await drained(crowd.sql)
    await move(crowd.sql)
    began = time.monotonic()
    async with crowd.at_work(USERS):
        for number in itertools.count():
            await crowd.sql.execute(BYPASS, number)
            await crowd.answers(BETWEEN_TURNS)
            if crowd.wrong or (number >= BYPASSED and time.monotonic() - began >= seconds):
                break
        waited = await crowd.sql.fetchval("SELECT count(*) FROM outbox_events")
        with running(WORKER, crowd.env) as worker:
            await worker.wait_for("batch_settled")
            await crowd.answers(BETWEEN_TURNS)
    assert crowd.wrong[:3] == []
    assert waited > BYPASSED
    assert await crowd.sql.fetchval("SELECT count(*) FROM phase_turns WHERE kind = 'fall_back'") == 0
    assert await different(crowd.sql) == []
    print(f"{crowd.writes} writes, {waited} events waited, {crowd.looks} looks")  # noqa: T201
