"""A crowd of users, each of whom writes again a moment after the answer to the write before."""

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator
from dataclasses import dataclass

import asyncpg
import httpx

from tests.legacy_rows import seed
from tests.processes import HANG_SECONDS, Running

COLLECTIONS = 49  # not a multiple of five: every one of them gets its turn
USERS = 4  # an API on a busy machine has a place and a connection for each
REST_SECONDS = 0.01
RINGS_HEARD = 10

INSERT_COLLECTIONS = """
    WITH inserted AS (
        INSERT INTO collections (collection_id, project_id, collection_name, created_by, is_active)
        SELECT 'c' || number, 'p1', 'name', 'owner', true
        FROM generate_series(0, $1::integer - 1) AS number
        RETURNING *
    )
    INSERT INTO outbox_events (aggregate_id, event_type, source, payload)
    SELECT collection_id, 'collection.created', 'backfill', jsonb_build_object('project_id', project_id,
        'research_context', description, 'created_at', created_at, 'updated_at', updated_at)
    FROM inserted
"""


@dataclass(frozen=True)
class Answer:
    """What came back for a request; no status when nothing did."""

    number: int
    status: int | None
    retry_after: str | None = None


class Load:
    """The users of one API, and every answer that they got."""

    def __init__(self, client: httpx.AsyncClient) -> None:
        self.answers: list[Answer] = []  # in the order in which they came
        self._client = client
        self._begun = 0

    async def write_until(self, stopped: asyncio.Event) -> None:
        """Be one of the users."""
        while not stopped.is_set():
            number = self._begun
            self._begun += 1
            self.answers.append(await self._write(number))
            await asyncio.sleep(REST_SECONDS)

    async def answered(self, count: int, status: int = 200) -> None:
        """Wait until so many requests that begin from now on are answered in this way."""
        first = self._begun
        async with asyncio.timeout(HANG_SECONDS):
            while sum(it.number >= first and it.status == status for it in self.answers) < count:
                await asyncio.sleep(0.01)

    async def answered_in_a_row(self, count: int, status: int = 200) -> None:
        """Wait until so many answers, one after the other, were of this kind; none counts that is there."""
        first = len(self.answers)
        async with asyncio.timeout(HANG_SECONDS):
            while len(latest := self.answers[first:][-count:]) < count or {it.status for it in latest} != {
                status
            }:
                await asyncio.sleep(0.01)

    async def next_answers(self, count: int) -> list[Answer]:
        """Return the answers to so many requests that begin from now on."""
        first = self._begun
        async with asyncio.timeout(HANG_SECONDS):
            while len(found := [it for it in self.answers if first <= it.number < first + count]) < count:
                await asyncio.sleep(0.01)
        return found

    async def _write(self, number: int) -> Answer:
        """Change a collection four times out of five, and create one the fifth time."""
        body = {"collection_name": f"write {number}", "description": f"text {number}"}
        method, path = ("POST", "") if number % 5 == 4 else ("PUT", f"/c{number % COLLECTIONS}")
        try:
            response = await self._client.request(method, f"/projects/p1/collections{path}", json=body)
        except httpx.TransportError:
            return Answer(number, None)
        return Answer(number, response.status_code, response.headers.get("Retry-After"))


async def prepare(sql: asyncpg.Connection) -> None:
    """Insert what the load writes to; somebody will change only some of it."""
    await seed(sql)
    await sql.execute(INSERT_COLLECTIONS, COLLECTIONS)


@contextlib.asynccontextmanager
async def steady_load(url: str) -> AsyncIterator[Load]:
    """Keep the load up for as long as the block, then wait for the last answer."""
    stopped = asyncio.Event()
    async with (
        httpx.AsyncClient(base_url=url, headers={"User-ID": "owner"}, timeout=HANG_SECONDS) as client,
        asyncio.TaskGroup() as users,
    ):
        load = Load(client)
        for _ in range(USERS):
            users.create_task(load.write_until(stopped))
        try:
            yield load
        finally:
            stopped.set()


async def rings_heard(worker: Running) -> None:
    """Wait until rings wake the worker, for ten batches from now on; each second a sweep takes one."""
    seen, wakes = len(worker.lines), list[str]()
    async with asyncio.timeout(HANG_SECONDS):
        while wakes.count("doorbell") < RINGS_HEARD:
            await asyncio.sleep(0.02)
            seen, news = len(worker.lines), worker.lines[seen:]
            lines = [json.loads(line) for line in news if "batch_settled" in line]
            wakes += [line["wake"] for line in lines]


async def all_applied(sql: asyncpg.Connection) -> None:
    """Wait until everything that is appended by now is settled."""
    last = await sql.fetchval("SELECT last_value FROM outbox_events_id_seq")
    async with asyncio.timeout(HANG_SECONDS):
        while await sql.fetchval("SELECT count(*) FROM outbox_events WHERE id <= $1", last):
            await asyncio.sleep(0.01)


async def assert_all_present(sql: asyncpg.Connection, answers: list[Answer]) -> None:
    """Find every acknowledged write in the activity log, which its transaction wrote."""
    rows = await sql.fetch("SELECT split_part(description, '''', 2) AS name FROM activity_logs")
    acknowledged = {f"write {answer.number}" for answer in answers if answer.status == 200}
    assert acknowledged - {row["name"] for row in rows} == set()
