"""An older release beside this one, on one database, while users write: there and back."""

import asyncio
import contextlib
import signal
from collections import Counter
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path

import asyncpg
import pytest
from pydantic import SecretStr

from shared.events import NEWEST_KNOWN_VERSION
from shared.postgres.database import create_engine
from shared.revision import REVISION
from shared.settings import Settings
from tests.audit.pairs import audited
from tests.databases import Databases
from tests.drift import drained, drift
from tests.forked import ROOT
from tests.legacy_rows import seed
from tests.processes import HANG_SECONDS, Running, environment, running, running_api, running_worker
from tests.versions.kept_releases import FIRST, RELEASES, Release, revision_of
from tests.versions.later import append_later, waiting
from tests.versions.rotation import HOT, Rotation

pytestmark = [pytest.mark.slow, pytest.mark.wide]

LATER = NEWEST_KNOWN_VERSION + 1
LATER_WORKER = f"""
import runpy, shared.events
shared.events.NEWEST_KNOWN_VERSION = {LATER}
runpy.run_module("worker", run_name="__main__")
"""
COLLECTIONS = """
    INSERT INTO collections (collection_id, project_id, collection_name, created_by, is_active)
    SELECT unnest($1::text[]), 'p1', 'name', 'owner', true
"""
WAITING_ONES = ["waiting-live", "waiting-backfill"]
WRITES = 3
# What no release of ours gives a value.
ADD_COLUMN = """
    ALTER TABLE outbox_events ADD COLUMN nobodys integer NOT NULL DEFAULT 0;
    ALTER TABLE outbox_events ALTER COLUMN nobodys DROP DEFAULT
"""
DROP_COLUMN = "ALTER TABLE outbox_events DROP COLUMN nobodys"
FINAL = {"applied", "stale", "conflated"}


@dataclass
class Site:
    """A database, the two releases, and every process that ever ran on it; `urls` are of logins."""

    env: dict[str, str]
    release_before: Release
    before: Path  # its root
    urls: dict[str, str] = field(default_factory=dict)
    rotation: Rotation = field(default_factory=Rotation)
    apis: list[Running] = field(default_factory=list)
    workers: list[Running] = field(default_factory=list)

    def env_of(self, role: str) -> dict[str, str]:
        """Return what a process of that role needs; it is the owner where the role has no login."""
        return self.env | {"DATABASE_URL": self.urls.get(role, self.env["DATABASE_URL"])}

    async def run(self, *arguments: str, root: Path = ROOT, status: int = 0, role: str = "owner") -> Running:
        """Run a command to its end, which must have this status."""
        with running(list(arguments), self.env_of(role), root) as command:
            assert await command.exit_code() == status, command.output
        return command

    @contextlib.asynccontextmanager
    async def release(self, name: str, root: Path) -> AsyncIterator[None]:
        """Let API and worker of a release take part while the block runs, then end as on a deploy."""
        async with (
            running_worker(self.env_of("worker"), root) as worker,
            running_api(self.env_of("api"), root) as (api, url),
        ):
            self.workers.append(worker)
            self.apis.append(api)
            async with self.rotation.holding(name, url):
                yield
            for process, code in (
                (api, -signal.SIGTERM),
                (worker, 0),
            ):  # uvicorn shuts down, then hands it on
                process.signal(signal.SIGTERM)
                assert await process.exit_code() == code, process.output

    def appended(self) -> list[int]:
        """Return the ids of the events that APIs say they have appended."""
        return [line["event_id"] for api in self.apis for line in api.logged("collection_written")]

    def settled(self) -> Counter[int]:
        """Count how often workers say that an event was settled."""
        lines = [line for worker in self.workers for line in worker.logged("event_settled")]
        assert {line["outcome"] for line in lines} <= FINAL
        return Counter(line["event_id"] for line in lines)


@pytest.fixture(params=RELEASES, ids=str)
async def site(request: pytest.FixtureRequest, databases: Databases, redis_url: str, tmp_path: Path) -> Site:
    """A database as the older release has migrated it itself."""
    release: Release = request.param
    url = databases.create_empty(f"mixed_{tmp_path.name}")
    site = Site(environment(url, redis_url), release, release.unpack(tmp_path))
    await site.run("-m", "alembic", "upgrade", "head", root=site.before)
    return site


@pytest.fixture
async def site_sql(site: Site) -> AsyncIterator[asyncpg.Connection]:
    connection = await asyncpg.connect(site.env["DATABASE_URL"])
    await seed(connection)
    await connection.execute(COLLECTIONS, [*HOT, *WAITING_ONES])
    yield connection
    await connection.close()


async def revision(sql: asyncpg.Connection) -> str:
    found: str = await sql.fetchval("SELECT version_num FROM collection_sync_version")
    return found


async def test_a_rolling_change_there_and_back_fails_no_write_and_loses_no_event(
    site: Site, site_sql: asyncpg.Connection
) -> None:
    sql, rotation = site_sql, site.rotation
    assert await revision(sql) == revision_of(site.before)
    stack = contextlib.AsyncExitStack
    async with stack() as old, stack() as new, stack() as writing:
        await old.enter_async_context(site.release("before", site.before))
        await writing.enter_async_context(rotation.writing())
        await rotation.answered("before", 20)

        # There: migrate first, then this release beside the other, then without it.
        await site.run("-m", "alembic", "upgrade", "head")
        assert await revision(sql) == REVISION
        await rotation.answered("before", 20)
        await new.enter_async_context(site.release("this", ROOT))
        later = [
            await append_later(sql, "waiting-live", version=LATER),
            await append_later(sql, "waiting-backfill", version=LATER, source="backfill"),
        ]
        await rotation.answered("before", 30)
        await rotation.answered("this", 30)
        await old.aclose()
        await rotation.answered("this", 20)

        # And back: the schema stays.
        await old.enter_async_context(site.release("before", site.before))
        await rotation.answered("before", 30)
        await rotation.answered("this", 30)
        await new.aclose()
        await rotation.answered("before", 20)
        await writing.aclose()
        assert await rotation.refused("before") is None
        await sql.execute(ADD_COLUMN)
        refused = await rotation.refused("before")
        assert refused is not None, "a schema that a release cannot write to would go unnoticed"
        await sql.execute(DROP_COLUMN)

        async with asyncio.timeout(HANG_SECONDS):
            while await waiting(sql) != later:
                await asyncio.sleep(0.02)
        proves = site.release_before is FIRST  # as it does not know of events that it does not know
        await site.run("-m", "worker.audit", root=site.before, status=0 if proves else 1)

    assert rotation.wrong == []
    assert len(site.appended()) == rotation.answers.total()
    assert site.settled() == Counter(site.appended())
    assert sorted(await drift(sql)) == sorted(WAITING_ONES)
    await require_audit(site, "incomplete")  # behind events that it does not know nothing is proved

    # What neither of them knew was left to a release that does.
    with running(["-c", LATER_WORKER], site.env) as worker:
        await drained(sql)
        worker.signal(signal.SIGTERM)
        assert await worker.exit_code() == 0
    applied = {line["lane"]: line["applied"] for line in worker.logged("batch_settled")}
    assert applied == {"live": 1, "backfill": 1}
    assert await drift(sql) == []
    await require_audit(site, "in_sync")


async def test_what_one_release_rings_for_the_other_s_worker_finds_by_itself(
    site: Site, site_sql: asyncpg.Connection
) -> None:
    """The first release has other names in Redis, so neither hears the other: each sweeps."""
    await site.run("-m", "alembic", "upgrade", "head")
    for writer, worker in ((site.before, ROOT), (ROOT, site.before)):
        async with (
            running_worker(site.env, worker) as finder,
            running_api(site.env, writer) as (api, url),
            site.rotation.holding("writer", url),
        ):
            for number in range(WRITES):
                await site.rotation.request("PUT", f"/{HOT[number % len(HOT)]}", description=f"{number}")
                await drained(site_sql)
        appended = [line["event_id"] for line in api.logged("collection_written")]
        assert sorted(line["event_id"] for line in finder.logged("event_settled")) == sorted(appended)
        assert len(appended) == WRITES
    assert site.rotation.wrong == []


async def require_audit(site: Site, verdict: str) -> None:
    settings = Settings(
        database_url=SecretStr(site.env["DATABASE_URL"]), redis_url=SecretStr(site.env["REDIS_URL"])
    )
    engine = create_engine(settings, application_name="test", pool_size=5, statement_timeout_seconds=30)
    try:
        run = await audited(engine)
        assert (run.verdict, run.missing, run.mismatched, run.orphaned) == (verdict, 0, 0, 0)
    finally:
        await engine.dispose()
