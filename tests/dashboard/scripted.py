"""A run of everything there is to see, by the product's own processes, which leave their logs behind."""

import asyncio
import json
import signal
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import asyncpg
import httpx
from sqlalchemy.ext.asyncio import AsyncEngine

from shared.events import EventType, Source
from shared.outbox import append_event
from tests.audit.pairs import put_legacy, put_target
from tests.forked import run
from tests.legacy_rows import SET_COLLECTION, seed
from tests.log_lines import lines_of
from tests.processes import HANG_SECONDS, Running, running, running_api
from tests.worker.events import append_again, append_raw
from worker.dashboard.log_state import LogState
from worker.dashboard.page_state import PageState
from worker.dashboard.reading import Logs

# What became of each event, by the database alone: the worker's own words are not asked.
RECORD = """
    CREATE TABLE settled (
        id bigint, aggregate_id text, lane smallint, created_at timestamptz, age_ms float8,
        batch text, version bigint, project_is_there boolean);
    CREATE FUNCTION record_settled() RETURNS trigger LANGUAGE plpgsql AS $$
    BEGIN
        INSERT INTO settled VALUES (
            OLD.id, OLD.aggregate_id, OLD.lane, OLD.created_at,
            extract(epoch FROM clock_timestamp() - OLD.created_at) * 1000,
            pg_current_xact_id()::text,
            (SELECT version FROM applied_versions WHERE collection_id = OLD.aggregate_id),
            EXISTS (SELECT FROM projects WHERE project_id = OLD.payload ->> 'project_id'));
        RETURN NULL;
    END $$;
    CREATE CONSTRAINT TRIGGER record_settled AFTER DELETE ON outbox_events
        DEFERRABLE INITIALLY DEFERRED -- it runs within COMMIT
        FOR EACH ROW EXECUTE FUNCTION record_settled();
"""
OLD_ROWS = """
    INSERT INTO collections (collection_id, project_id, collection_name, description, created_by, is_active)
    SELECT 'old-' || n, 'p' || 1 + n % 3, 'name', 'text ' || n, 'owner', true FROM generate_series(1, 300) n
"""


def moment_of(line: Mapping[str, Any]) -> float:
    return datetime.fromisoformat(line["timestamp"]).timestamp()


@dataclass
class System:
    """Its processes, their logs, and the database that they share."""

    env: dict[str, str]
    logs: Path
    sql: asyncpg.Connection
    engine: AsyncEngine
    api: httpx.AsyncClient
    worker: Running

    def page_state(self) -> PageState:
        """Return what the logs say now."""
        state = LogState()
        logs = Logs(sorted(self.logs.glob("*.log")), state)
        for _ in logs.read():
            pass
        logs.close()
        return state.page_state(live=True)

    def moments(self) -> list[float]:
        """Return the moment of each line so far, rounded to milliseconds."""
        lines = lines_of(*self.logs.glob("*.log"))
        return [round(moment_of(line), 3) for line in lines]

    def logged_lags(self) -> list[tuple[int, float]]:
        """Return the lag of each event that has a line of its own."""
        return [(line["event_id"], line["lag_ms"]) for line in self.worker.logged("event_settled")]

    async def command(self, module: str, *arguments: str, status: int = 0) -> None:
        """Run a command to its end."""
        env = {**self.env, "LOG_FILE": str(self.logs / "commands.log")}
        done = await asyncio.to_thread(run, ["-m", module, *arguments], env, timeout=HANG_SECONDS)
        assert done.returncode == status, done.stdout + done.stderr

    async def write(self, method: str, path: str = "", **body: str) -> str:
        """Write to the API and return the collection's id."""
        answer = await self.api.request(method, f"/projects/p1/collections{path}", json=body or None)
        assert answer.status_code == 200, answer.text
        return str(answer.json().get("collection_id", path.removeprefix("/")))

    async def drained(self) -> None:
        """Wait until no event waits."""
        async with asyncio.timeout(HANG_SECONDS):
            while await self.sql.fetchval("SELECT count(*) FROM outbox_events"):
                await asyncio.sleep(0.02)

    async def heartbeat(self, **fields: int) -> None:
        """Wait for a heartbeat that says this, which none said before."""
        seen = len(self.worker.logged("worker_heartbeat"))
        async with asyncio.timeout(HANG_SECONDS):
            while not any(
                fields.items() <= beat.items() for beat in self.worker.logged("worker_heartbeat")[seen:]
            ):
                await asyncio.sleep(0.05)


@asynccontextmanager
async def quick_worker(env: dict[str, str]) -> AsyncIterator[Running]:
    """Start a worker whose heart beats every second, and wait until it works."""
    with running(["-m", "tests.dashboard.quick_worker"], env) as worker:
        await worker.wait_for("worker_started")
        yield worker


@asynccontextmanager
async def system(
    env: dict[str, str], logs: Path, sql: asyncpg.Connection, engine: AsyncEngine
) -> AsyncIterator[System]:
    """Start API and worker, each with a log of its own."""
    await seed(sql)
    await sql.execute(RECORD)
    async with (
        quick_worker({**env, "LOG_FILE": str(logs / "worker.log")}) as worker,
        running_api({**env, "LOG_FILE": str(logs / "api.log")}) as (_, url),
        httpx.AsyncClient(base_url=url, headers={"User-ID": "owner"}, timeout=HANG_SECONDS) as api,
    ):
        yield System(env, logs, sql, engine, api, worker)
        worker.signal(signal.SIGTERM)
        assert await worker.exit_code() == 0


async def users_write(run: System) -> str:
    """Create, change and delete through the API; return a collection that stays."""
    made = [await run.write("POST", collection_name=f"c{number}") for number in range(12)]
    for collection_id in made[:6]:
        await run.write("PUT", f"/{collection_id}", description="changed")
    for collection_id in made[6:9]:
        await run.write("DELETE", f"/{collection_id}")
    await run.drained()
    return made[0]


async def write_together(engine: AsyncEngine, collection_ids: list[str]) -> None:
    """Write collections and their events in one transaction, so that one batch claims them."""
    async with engine.begin() as connection:
        for number, name in enumerate(collection_ids):
            values = {
                "collection_id": name,
                "project_id": "p1",
                "description": f"{number}",
                "is_active": True,
            }
            await connection.execute(SET_COLLECTION, values)
            await append_event(connection, name, EventType.UPDATED, Source.API)


async def odd_events(run: System) -> None:
    """Append events that are conflated, stale and obsolete."""
    await write_together(run.engine, ["often"] * 3)
    await run.drained()
    then = "2024-01-01T00:00:00Z"
    payload = {"project_id": "p1", "research_context": "old", "created_at": then, "updated_at": then}
    old = {
        "aggregate_id": "often",
        "event_type": "collection.updated",
        "payload": json.dumps(payload),
        "created_at": datetime.fromisoformat(then),
    }
    await append_again(run.sql, 1, old)
    await append_raw(run.sql, "ghost", **{**payload, "project_id": "gone"})
    await run.drained()


async def poison(run: System, collection_id: str) -> None:
    """Let four events die: their letters are superseded, replayed, discarded and left open."""
    await put_legacy(run.sql, "replayed")
    dead = [
        await append_raw(run.sql, name, created_at="tomorrow-ish")
        for name in (collection_id, "replayed", "x", "y")
    ]
    await run.drained()
    await run.write("PUT", f"/{collection_id}", description="mends it")
    await run.command("worker.dead_letters", "replay", str(dead[1]))
    await run.command("worker.dead_letters", "discard", str(dead[2]))
    await run.drained()


async def plant_drift(run: System) -> None:
    """Change the target behind the system's back, so that each kind of difference is there."""
    await run.sql.execute(
        "UPDATE project_collections SET research_context = 'x' WHERE collection_id = 'old-7'"
    )
    await run.sql.execute("DELETE FROM project_collections WHERE collection_id = 'old-8'")
    await put_legacy(run.sql, "former", is_active=False)
    await put_target(run.sql, "former", research_context="y" * 300)


async def hold_a_row(run: System, database_url: str) -> PageState:
    """Keep an event from being applied until a heartbeat has counted it; return what was shown then."""
    holder = await asyncpg.connect(database_url)
    try:
        async with holder.transaction():
            await holder.execute("SELECT FROM project_collections WHERE collection_id = 'often' FOR UPDATE")
            await write_together(run.engine, ["often", "beside"])
            await run.worker.wait_for("events_postponed")
            await run.heartbeat(pending_live=1)
            return run.page_state()
    finally:
        await holder.close()
