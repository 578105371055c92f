"""A steady load of writes that does not wait for its answers, as a crowd of users does not."""

import asyncio
import contextlib
import statistics
from collections.abc import AsyncIterator
from dataclasses import dataclass

import asyncpg
import httpx

from tests.legacy_rows import seed

WRITES_PER_SECOND = 50
COLLECTIONS = 49  # not a multiple of five: every one of them gets its turn
PATIENCE_SECONDS = 10

INSERT_COLLECTIONS = """
    INSERT INTO collections (collection_id, project_id, collection_name, created_by, is_active)
    SELECT 'c' || number, 'p1', 'name', 'owner', true
    FROM generate_series(0, $1::integer - 1) AS number
"""


@dataclass(frozen=True)
class Answer:
    """What came back for a write; no status when nothing did. The name is the write's own."""

    name: str
    seconds: float
    status: int | None
    retry_after: str | None = None


class Load:
    """Begins a write every 20 ms, whatever became of the others: four changes, then a new collection."""

    def __init__(self, client: httpx.AsyncClient) -> None:
        self._client = client
        self._writes: list[asyncio.Task[Answer]] = []

    async def run(self) -> None:
        """Write until cancelled."""
        clock = asyncio.get_running_loop().time
        began = clock()
        while True:
            number = len(self._writes)
            await asyncio.sleep(began + number / WRITES_PER_SECOND - clock())
            self._writes.append(asyncio.create_task(self._write(number)))

    @contextlib.asynccontextmanager
    async def phase(self) -> AsyncIterator[list[Answer]]:
        """Collect the answers to the writes that begin in the block; complete after its end."""
        first = len(self._writes)
        answers: list[Answer] = []
        yield answers
        answers += await asyncio.gather(*self._writes[first:])

    async def answers(self) -> list[Answer]:
        """Return the answers to all writes so far, when they are there."""
        return await asyncio.gather(*self._writes)

    async def _write(self, number: int) -> Answer:
        name = f"write {number}"
        body = {"collection_name": name, "description": f"text {number}"}
        method, path = ("POST", "") if number % 5 == 4 else ("PUT", f"/c{number % COLLECTIONS}")
        began = asyncio.get_running_loop().time()
        try:
            response = await self._client.request(method, f"/projects/p1/collections{path}", json=body)
        except httpx.TransportError:
            return Answer(name, asyncio.get_running_loop().time() - began, None)
        seconds = asyncio.get_running_loop().time() - began
        return Answer(name, seconds, response.status_code, response.headers.get("Retry-After"))


async def prepare(sql: asyncpg.Connection) -> None:
    """Insert what the load writes to."""
    await seed(sql)
    await sql.execute(INSERT_COLLECTIONS, COLLECTIONS)


@contextlib.asynccontextmanager
async def steady_load(url: str) -> AsyncIterator[Load]:
    """Keep the load up for as long as the block, then wait for the last answer."""
    async with httpx.AsyncClient(
        base_url=url, headers={"User-ID": "owner"}, timeout=PATIENCE_SECONDS
    ) as client:
        load = Load(client)
        running = asyncio.create_task(load.run())
        try:
            yield load
        finally:
            running.cancel()
            await asyncio.wait([running])
            await load.answers()


def percentiles_ms(answers: list[Answer]) -> tuple[float, float]:
    """Return the median and the 99th percentile of what the writes took."""
    hundredths = statistics.quantiles(
        [answer.seconds * 1000 for answer in answers], n=100, method="inclusive"
    )
    return hundredths[49], hundredths[98]


async def assert_all_present(sql: asyncpg.Connection, answers: list[Answer]) -> None:
    """Find every acknowledged write in the activity log, which its transaction wrote."""
    rows = await sql.fetch("SELECT split_part(description, '''', 2) AS name FROM activity_logs")
    acknowledged = {answer.name for answer in answers if answer.status == 200}
    assert acknowledged - {row["name"] for row in rows} == set()
