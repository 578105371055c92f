"""Users who write and list through two APIs, and looks at every list all the while."""

import asyncio
import itertools
import json
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field

import asyncpg
from sqlalchemy.ext.asyncio import AsyncEngine

from benchmarks.http_client import HttpClient
from tests.legacy_rows import set_collection
from tests.phase.moving import different
from tests.processes import HANG_SECONDS, Running, running_api

PROJECTS = ("p1", "p2", "p3")
LISTS_EACH = 3  # writes
WAITING_LISTS = """
    SELECT count(*) FROM pg_locks JOIN pg_stat_activity USING (pid)
    WHERE NOT granted AND datname = current_database() AND query LIKE '%visible_collections%'
        AND query NOT LIKE '%pg_locks%'
"""
IS_PENDING = """
    SELECT EXISTS (SELECT FROM outbox_events)
        AND EXISTS (SELECT FROM migration_phase WHERE phase = 'reads_moved')
"""
# What an API had sent when it was killed may still be at work.
SENT_BEFORE = """
    SELECT count(*) FROM pg_stat_activity
    WHERE datname = current_database() AND state = 'active' AND query_start < $1 AND pid <> pg_backend_pid()
"""


GONE = (OSError, asyncio.IncompleteReadError)


@dataclass
class Api:
    """A process, and the port where it, or its successor, listens."""

    process: Running
    port: int
    is_away: bool = False  # killed, and its successor is not ready


@dataclass
class Crowd:
    """What the users and the looks saw. seconds: of each list, as its user had it."""

    apis: Sequence[Api]
    engine: AsyncEngine
    sql: asyncpg.Connection
    looking: asyncpg.Connection
    env: Mapping[str, str]  # of processes
    each_seconds: float = 0.0  # from a write of a user until his next
    look_seconds: float = 0.0  # of rest between two looks
    repeated: int = 0  # requests that a killed API had in hand
    answered: int = 0
    writes: int = 0
    looks: int = 0
    looks_at_unsettled: int = 0  # with the reads moved
    wrong: list[object] = field(default_factory=list)
    seconds: list[tuple[float, float]] = field(default_factory=list)  # when, and how long
    stopped: asyncio.Event = field(default_factory=asyncio.Event)

    @asynccontextmanager
    async def at_work(self, users: int) -> AsyncIterator[None]:
        """Let so many users write and list for as long as the block, and look at all lists over and over."""
        async with asyncio.TaskGroup() as tasks:
            for number in range(users):
                tasks.create_task(self._use(number))
            tasks.create_task(self._look())
            try:
                yield
            finally:
                self.stopped.set()

    async def answers(self, count: int) -> None:
        """Wait until so many more requests are answered and as many looks made, or anything is wrong."""
        answered, looks = self.answered + count, self.looks + count
        async with asyncio.timeout(HANG_SECONDS):
            while not self.wrong and (self.answered < answered or self.looks < looks):
                await asyncio.sleep(0.002)

    async def kill_an_api(self, processes: AsyncExitStack) -> None:
        """Kill the one that runs for longest, and start it again where it was; requests go to the others."""
        api = self.apis[0]
        self.apis = [*self.apis[1:], api]
        api.is_away = True
        await asyncio.to_thread(api.process.kill)
        api.process, _ = await processes.enter_async_context(running_api(self.env, port=api.port))
        api.is_away = False

    async def _look(self) -> None:
        while not self.stopped.is_set():
            self.wrong += await different(self.looking)
            if await self.looking.fetchval(WAITING_LISTS):
                self.wrong.append("a list waits for a lock")
            self.looks_at_unsettled += await self.looking.fetchval(IS_PENDING)
            self.looks += 1
            await asyncio.sleep(self.look_seconds)

    async def _use(self, number: int) -> None:
        """Be the one user of a collection: what he lists is what he wrote."""
        async with AsyncExitStack() as connections:
            await _User(self, connections, number).use()

    async def over(self) -> None:
        """Wait until nothing is at work that was sent to PostgreSQL before this moment."""
        async with asyncio.timeout(HANG_SECONDS), self.engine.connect() as connection:
            sql = (await connection.get_raw_connection()).driver_connection
            assert isinstance(sql, asyncpg.Connection)
            now = await sql.fetchval("SELECT clock_timestamp()")
            while await sql.fetchval(SENT_BEFORE, now):
                await asyncio.sleep(0.002)


class _User:
    """Writes one collection, now by this API and now by another, and lists it by the next one."""

    def __init__(self, crowd: Crowd, connections: AsyncExitStack, number: int) -> None:
        self._crowd = crowd
        self._connections = connections
        self._number = number
        self._name = f"u{number}"
        self._open: dict[Running, HttpClient] = {}

    async def use(self) -> None:
        crowd, name = self._crowd, self._name
        due = time.monotonic()
        home, text = PROJECTS[self._number % 3], "at first"
        await set_collection(crowd.engine, name, text, project_id=home)
        for step in itertools.count(1):
            if crowd.stopped.is_set():
                return
            turn = self._number + step
            path = f"/projects/{home}/collections"
            if step % 7 == 3:
                await self._ask(turn, "DELETE", f"{path}/{name}")
                await self._list(turn + 1, path, None)
                home = PROJECTS[turn % 3]  # it comes back elsewhere
                text = f"back {step}"
                await set_collection(crowd.engine, name, text, project_id=home)
            elif step % 7 == 5:
                moved = PROJECTS[(PROJECTS.index(home) + 1) % 3]
                await set_collection(crowd.engine, name, text, project_id=moved)
                await self._list(turn + 1, path, None)
                home = moved
            else:
                text = f"text {step}"
                await self._ask(turn, "PUT", f"{path}/{name}", {"description": text})
            crowd.writes += 1
            if step % LISTS_EACH == 0:
                await self._list(turn + 1, f"/projects/{home}/collections", text)
            due = max(due + crowd.each_seconds, time.monotonic())
            await asyncio.sleep(due - time.monotonic())

    async def _list(self, turn: int, path: str, text: str | None) -> None:
        began = time.monotonic()
        answer = await self._ask(turn, "GET", path)
        self._crowd.seconds.append((began, time.monotonic() - began))
        mine = [item["description"] for item in json.loads(answer) if item["collection_id"] == self._name]
        if mine != ([] if text is None else [text]):
            self._crowd.wrong.append(f"{self._name} in {path}: {mine}, not {text}")

    async def _ask(self, turn: int, method: str, path: str, body: object = None) -> bytes:
        """Ask an API; where it was killed meanwhile ask another one, as whatever balances the load does."""
        crowd, done = self._crowd, [b" 200 "]
        at_work = [api for api in crowd.apis if not api.is_away]
        api = at_work[turn % len(at_work)]
        process = api.process
        try:
            head, content = await self._exchange(api, method, path, body)
        except GONE:
            if not api.is_away and api.process is process:
                raise
            crowd.repeated += 1
            await crowd.over()
            other = next(one for one in crowd.apis if one is not api)
            head, content = await self._exchange(other, method, path, body)
            done += [b" 404 "] * (method == "DELETE")  # it may have been done before
        if not any(code in head[:14] for code in done):
            crowd.wrong.append(f"{method} {path}: {head!r} {content!r}")
        crowd.answered += 1
        return content

    async def _exchange(self, api: Api, method: str, path: str, body: object) -> tuple[bytes, bytes]:
        client = self._open.pop(process := api.process, None)
        if client is None:
            client = await self._connections.enter_async_context(HttpClient.connected(api.port))
        sent = b"" if body is None else json.dumps(body).encode()
        answer = await client.exchange(method, path, sent, "Content-Type: application/json\r\n")
        self._open[process] = client
        return answer
