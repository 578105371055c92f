"""Users who write and list through two APIs, and looks at every list all the while."""

import asyncio
import itertools
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import asyncpg
import httpx
from sqlalchemy.ext.asyncio import AsyncEngine

from tests.legacy_rows import set_collection
from tests.phase.moving import different
from tests.processes import HANG_SECONDS

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


@dataclass
class Crowd:
    """What the users and the looks saw. seconds: of each list, as its user had it."""

    clients: Sequence[httpx.AsyncClient]
    engine: AsyncEngine
    sql: asyncpg.Connection
    looking: asyncpg.Connection
    env: Mapping[str, str]  # of processes
    rest_seconds: float = 0.0
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

    async def _look(self) -> None:
        while not self.stopped.is_set():
            self.wrong += await different(self.looking)
            if await self.looking.fetchval(WAITING_LISTS):
                self.wrong.append("a list waits for a lock")
            self.looks_at_unsettled += await self.looking.fetchval(IS_PENDING)
            self.looks += 1
            await asyncio.sleep(self.rest_seconds)

    async def _use(self, number: int) -> None:
        """Be the one user of a collection: what he lists is what he wrote."""
        name = f"u{number}"
        home, text = PROJECTS[number % 3], "at first"
        await set_collection(self.engine, name, text, project_id=home)
        for step in itertools.count(1):
            if self.stopped.is_set():
                return
            writer, reader = (self.clients[(number + step + n) % len(self.clients)] for n in (0, 1))
            path = f"/projects/{home}/collections"
            if step % 7 == 3:
                await self._request(writer, "DELETE", f"{path}/{name}")
                await self._listed(reader, path, name, None)
                home = PROJECTS[(number + step) % 3]  # it comes back elsewhere
                text = f"back {step}"
                await set_collection(self.engine, name, text, project_id=home)
            elif step % 7 == 5:
                moved = PROJECTS[(PROJECTS.index(home) + 1) % 3]
                await set_collection(self.engine, name, text, project_id=moved)
                await self._listed(reader, path, name, None)
                home = moved
            else:
                text = f"text {step}"
                await self._request(writer, "PUT", f"{path}/{name}", {"description": text})
            self.writes += 1
            if step % LISTS_EACH == 0:
                await self._listed(reader, f"/projects/{home}/collections", name, text)
            await asyncio.sleep(self.rest_seconds)

    async def _listed(self, client: httpx.AsyncClient, path: str, name: str, text: str | None) -> None:
        began = time.monotonic()
        answer = await self._request(client, "GET", path)
        self.seconds.append((began, time.monotonic() - began))
        mine = [item["description"] for item in answer.json() if item["collection_id"] == name]
        if mine != ([] if text is None else [text]):
            self.wrong.append(f"{name} in {path}: {mine}, not {text}")

    async def _request(
        self, client: httpx.AsyncClient, method: str, path: str, body: object = None
    ) -> httpx.Response:
        answer = await client.request(method, path, json=body)
        if answer.status_code != 200:
            self.wrong.append(f"{method} {path}: {answer.status_code} {answer.text}")
        self.answered += 1
        return answer
