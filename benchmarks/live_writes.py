"""Users who write, at a steady rate or all at once, and how long until each write is visible.

A write is what the API commits: a legacy row and its event in one transaction, then a press of the bell;
without HTTP, and with the driver, so that what writes is not what limits.
"""

import asyncio
import random
import time
from collections import deque
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from functools import partial
from itertools import count
from typing import TypeVar

import asyncpg
from sqlalchemy.dialects.postgresql import asyncpg as dialect

from benchmarks.bench import Bench, require
from benchmarks.worker_process import Worker, working
from shared.events import EventType, Source
from shared.outbox import APPEND_EVENT
from shared.redis.client import open_redis
from shared.redis.deployment import Deployment, read_identity
from shared.redis.doorbell import Doorbell

Result = TypeVar("Result")

CONNECTIONS = 16
PROJECT = "live"
MIX = {EventType.CREATED: 60, EventType.UPDATED: 30, EventType.DELETED: 10}  # percent

OWNER = f"""
    INSERT INTO users (user_id, username, email, first_name, last_name, category, role, institution,
        subject_area, how_heard_about_us)
    VALUES ('{PROJECT}', '{PROJECT}', '{PROJECT}', '', '', '', '', '', '', '');
    INSERT INTO projects (project_id, project_name, owner_user_id) VALUES ('{PROJECT}', '', '{PROJECT}')
"""  # noqa: S608 - a constant
CHANGES = {
    EventType.CREATED: f"""
        INSERT INTO collections
            (collection_id, project_id, collection_name, description, created_by, is_active)
        VALUES ($1, '{PROJECT}', 'benchmark', $2, '{PROJECT}', true)
    """,  # noqa: S608 - a constant
    EventType.UPDATED: """
        UPDATE collections SET description = $2, updated_at = clock_timestamp() WHERE collection_id = $1
    """,
    EventType.DELETED: """
        UPDATE collections SET is_active = false, description = $2, updated_at = clock_timestamp()
        WHERE collection_id = $1
    """,
}
UPSERT = """
    INSERT INTO project_collections (project_id, collection_id, research_context, created_at, updated_at)
    SELECT project_id, collection_id, description, created_at, updated_at
    FROM collections WHERE collection_id = $1
    ON CONFLICT (project_id, collection_id) DO UPDATE SET
        research_context = excluded.research_context, updated_at = excluded.updated_at
"""
APPEND = APPEND_EVENT.compile(dialect=dialect.dialect())  # type: ignore[no-untyped-call]
DIFFERENT = """
    SELECT count(*)
    FROM (SELECT * FROM collections WHERE project_id = $1 AND is_active) AS legacy
    FULL JOIN (SELECT * FROM project_collections WHERE project_id = $1) AS target USING (collection_id)
    WHERE (legacy.description, legacy.updated_at)
        IS DISTINCT FROM (target.research_context, target.updated_at)
        OR legacy.project_id IS DISTINCT FROM target.project_id
"""


async def commit_write(
    connection: asyncpg.Connection, event_type: EventType, collection_id: str, description: str
) -> int:
    """Change a legacy row, append its event and commit, by four round trips; return the event's id."""
    parameters = {
        "collection_id": collection_id,
        "event_type": event_type,
        "source": Source.API,
        "traceparent": None,
    }
    async with connection.transaction():
        await connection.execute(CHANGES[event_type], collection_id, description)
        return int(
            await connection.fetchval(str(APPEND), *(parameters[name] for name in APPEND.positiontup or ()))
        )


async def steadily(
    rate: int, seconds: float, act: Callable[[], Coroutine[None, None, Result]]
) -> list[Result]:
    """Begin `rate` acts a second, whatever became of the earlier ones; return what they return."""
    clock = asyncio.get_running_loop().time
    began = clock()
    acts = []
    for number in range(round(rate * seconds)):
        if (early := began + number / rate - clock()) > 0:
            await asyncio.sleep(early)
        acts.append(asyncio.create_task(act()))
    return await asyncio.gather(*acts)


class Writers:
    """Write legacy rows and their events in one transaction each, then press the bell, as the API does."""

    def __init__(self, pool: asyncpg.Pool, doorbell: Doorbell, worker: Worker) -> None:
        self.worker = worker
        self._pool = pool
        self._doorbell = doorbell
        self._numbers = count()
        self._at_rest: deque[str] = deque()  # collections that nobody is writing to, longest ago first

    async def write_steadily(self, rate: int, seconds: float) -> list[float]:
        """Begin `rate` writes a second, whatever became of the earlier ones.

        Returns for each the seconds from the return of its COMMIT until its event was applied.
        """
        committed = await steadily(rate, seconds, self.write)
        await self.worker.applied([event_id for event_id, _ in committed])
        return [self.worker.applied_at[event_id] - committed_at for event_id, committed_at in committed]

    def press(self) -> None:
        """Press the bell for what others wrote."""
        self._doorbell.press()

    async def write_and_upsert(self) -> float:
        """Create a row without an event and, at once, project it by one statement, without any guard.

        Returns the seconds from the return of its COMMIT until the statement's has returned: what no
        worker can undercut.
        """
        collection_id = f"{PROJECT}-bare-{next(self._numbers)}"
        async with self._pool.acquire() as connection:
            await connection.execute(CHANGES[EventType.CREATED], collection_id, "bare")
            committed_at = time.time()
            await connection.execute(UPSERT, collection_id)
            return time.time() - committed_at

    async def write(self) -> tuple[int, float]:
        """Write once; return the event's id, and the time at which its COMMIT had returned."""
        number = next(self._numbers)
        [event_type] = random.choices(list(MIX), list(MIX.values()))  # noqa: S311 - chance, not a secret
        if event_type is EventType.CREATED or not self._at_rest:
            event_type, collection_id = EventType.CREATED, f"{PROJECT}-{number}"
        else:
            collection_id = self._at_rest.popleft()
        async with self._pool.acquire() as connection:
            event_id = await commit_write(connection, event_type, collection_id, f"text {number}")
            committed_at = time.time()
            self._doorbell.press()
        if event_type is not EventType.DELETED:
            self._at_rest.append(collection_id)
        return event_id, committed_at


async def identity(pool: asyncpg.Pool) -> str:
    """Return the identity of the database that the pool leads to."""
    async with pool.acquire() as connection:
        return await read_identity(connection)


@asynccontextmanager
async def writing(bench: Bench) -> AsyncIterator[Writers]:
    """Offer users who write to a project of their own, and one worker that applies it.

    Raises:
        LocalError: at the end of the block, `project_collections` is not what the legacy rows say.

    """
    async with (
        bench.sql() as sql,
        asyncpg.create_pool(bench.url, min_size=CONNECTIONS, max_size=CONNECTIONS) as pool,
        open_redis(bench.settings.redis_url.get_secret_value()) as redis,
        working() as worker,
    ):
        await sql.execute(OWNER)
        doorbell = Doorbell(redis, Deployment(partial(identity, pool)))
        ringing = asyncio.create_task(doorbell.run())
        try:
            yield Writers(pool, doorbell, worker)
        finally:
            ringing.cancel()
            await asyncio.wait([ringing])
        different = await sql.fetchval(DIFFERENT, PROJECT)
        require(different == 0, f"{different} rows of project_collections are not what the legacy rows say")
