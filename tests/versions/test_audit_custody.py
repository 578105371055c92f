"""An audit has one holder also where a release that knows no token takes it, or is taken over."""

import asyncio
import signal
from pathlib import Path

import asyncpg
import pytest
from sqlalchemy.ext.asyncio import AsyncEngine

from shared.audit_runs import AuditOptions, request
from shared.settings import Settings
from tests.audit.pairs import AUDIT, put_synced
from tests.backfill.driving import until_waiting
from tests.processes import HANG_SECONDS, environment, running, running_worker
from tests.versions.kept_releases import RELEASES, Release, revision_of
from worker.audit.custody import take_up
from worker.audit.run import carry_out
from worker.custody import RunLostError

pytestmark = [pytest.mark.slow, pytest.mark.wide]

AGE = "UPDATE audit_runs SET heartbeat_at = clock_timestamp() - interval '6 seconds'"
RUN = "SELECT status, verdict, started_at, finished_at FROM audit_runs WHERE id = 1"
FIRST_WITH_TOKENS = "0008"
TOKENS = "SELECT array_agg(driver_token ORDER BY id) FROM audit_runs"


@pytest.fixture(params=RELEASES, ids=str)
def before(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    release: Release = request.param
    return release.unpack(tmp_path)


@pytest.fixture
def env(settings: Settings) -> dict[str, str]:
    return environment(settings.database_url.get_secret_value(), settings.redis_url.get_secret_value())


async def test_an_audit_of_the_release_before_is_left_to_it_and_taken_over_once_it_is_silent(
    engine: AsyncEngine, seeded: asyncpg.Connection, env: dict[str, str], before: Path
) -> None:
    await put_synced(seeded, 20)
    with running(["-m", "worker.audit", "--json"], env, before) as other:
        async with seeded.transaction():
            await seeded.execute("LOCK TABLE project_collections")
            await until_waiting(seeded, AUDIT)
            draws = revision_of(before) >= FIRST_WITH_TOKENS
            assert (await seeded.fetchval(TOKENS) != [None]) is draws
            assert await take_up(engine) is None
            other.signal(signal.SIGSTOP)
        await seeded.execute(AGE)
        custody = await take_up(engine)
        assert custody is not None
        run = await carry_out(custody, interrupted=asyncio.Event())
        assert (run.id, run.verdict, run.compared) == (1, "in_sync", 20)
        ended = await seeded.fetchrow(RUN)
        other.signal(signal.SIGCONT)
        assert await other.exit_code() == 1
    assert "Audit run 1 was taken up by another process" in other.output
    assert await seeded.fetchrow(RUN) == ended


async def test_an_audit_that_the_release_before_takes_over_is_lost_to_this_one(
    engine: AsyncEngine, seeded: asyncpg.Connection, env: dict[str, str], before: Path
) -> None:
    await put_synced(seeded, 20)
    async with engine.begin() as connection:
        await request(connection, AuditOptions(), "admin")
    custody = await take_up(engine)
    assert custody is not None
    async with running_worker(env, before):
        async with seeded.transaction():
            await seeded.execute("LOCK TABLE project_collections")
            await custody.write({})
            await silent(engine)
            await until_waiting(seeded, "^collection-sync duties$")
            taken = await seeded.fetchrow(RUN)
            assert taken["started_at"] > custody.run.started_at
            draws = revision_of(before) >= FIRST_WITH_TOKENS
            assert (await seeded.fetchval(TOKENS) != [custody.token]) is draws
            with pytest.raises(RunLostError):
                await custody.write({"verdict": "drift"})
        async with asyncio.timeout(HANG_SECONDS):
            while (ended := await seeded.fetchrow(RUN))["status"] == "running":
                await asyncio.sleep(0.02)
    assert (ended["status"], ended["verdict"], ended["started_at"]) == (
        "finished",
        "in_sync",
        taken["started_at"],
    )


async def silent(engine: AsyncEngine) -> None:
    async with engine.begin() as connection:
        await connection.exec_driver_sql(AGE)
