"""A steady load of requests that does not wait for its answers, as a crowd of users does not."""

import asyncio
import contextlib
import statistics
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass

import asyncpg
import httpx

from tests.legacy_rows import seed

COLLECTIONS = 49  # not a multiple of five: every one of them gets its turn
PATIENCE_SECONDS = 10

INSERT_COLLECTIONS = """
    INSERT INTO collections (collection_id, project_id, collection_name, created_by, is_active)
    SELECT 'c' || number, 'p1', 'name', 'owner', true
    FROM generate_series(0, $1::integer - 1) AS number
"""


Send = Callable[[httpx.AsyncClient, int], Awaitable[httpx.Response]]


@dataclass(frozen=True)
class Answer:
    """What came back for a request; no status when nothing did."""

    number: int
    seconds: float
    status: int | None
    retry_after: str | None = None


class Load:
    """Begins a request at each of its times, whatever became of the others."""

    def __init__(self, client: httpx.AsyncClient, send: Send, per_second: int) -> None:
        self._client = client
        self._send = send
        self._per_second = per_second
        self._requests: list[asyncio.Task[Answer]] = []

    async def run(self) -> None:
        """Send until cancelled."""
        clock = asyncio.get_running_loop().time
        began = clock()
        while True:
            number = len(self._requests)
            await asyncio.sleep(began + number / self._per_second - clock())
            self._requests.append(asyncio.create_task(self._request(number)))

    @contextlib.asynccontextmanager
    async def phase(self) -> AsyncIterator[list[Answer]]:
        """Collect the answers to what is sent in the block; complete after its end."""
        first = len(self._requests)
        answers: list[Answer] = []
        yield answers
        answers += await asyncio.gather(*self._requests[first:])

    async def answers(self) -> list[Answer]:
        """Return all answers so far, when they are there."""
        return await asyncio.gather(*self._requests)

    async def _request(self, number: int) -> Answer:
        clock = asyncio.get_running_loop().time
        began = clock()
        try:
            response = await self._send(self._client, number)
        except httpx.TransportError:
            return Answer(number, clock() - began, None)
        return Answer(number, clock() - began, response.status_code, response.headers.get("Retry-After"))


async def write(client: httpx.AsyncClient, number: int) -> httpx.Response:
    """Change a collection four times out of five, and create one the fifth time."""
    body = {"collection_name": f"write {number}", "description": f"text {number}"}
    method, path = ("POST", "") if number % 5 == 4 else ("PUT", f"/c{number % COLLECTIONS}")
    return await client.request(method, f"/projects/p1/collections{path}", json=body)


async def read(client: httpx.AsyncClient, _number: int) -> httpx.Response:
    """List a project that nobody writes to: always the same work, and none that concerns Redis."""
    return await client.get("/projects/p2/collections")


async def prepare(sql: asyncpg.Connection) -> None:
    """Insert what the load writes to."""
    await seed(sql)
    await sql.execute(INSERT_COLLECTIONS, COLLECTIONS)


@contextlib.asynccontextmanager
async def steady_load(url: str, send: Send = write, per_second: int = 50) -> AsyncIterator[Load]:
    """Keep the load up for as long as the block, then wait for the last answer."""
    async with httpx.AsyncClient(
        base_url=url, headers={"User-ID": "owner"}, timeout=PATIENCE_SECONDS
    ) as client:
        load = Load(client, send, per_second)
        running = asyncio.create_task(load.run())
        try:
            yield load
        finally:
            running.cancel()
            await asyncio.wait([running])
            await load.answers()


def percentiles_ms(answers: list[Answer]) -> tuple[float, float]:
    """Return the median and the 99th percentile of what the requests took."""
    hundredths = statistics.quantiles([a.seconds * 1000 for a in answers], n=100, method="inclusive")
    return hundredths[49], hundredths[98]


async def assert_all_present(sql: asyncpg.Connection, answers: list[Answer]) -> None:
    """Find every acknowledged write in the activity log, which its transaction wrote."""
    rows = await sql.fetch("SELECT split_part(description, '''', 2) AS name FROM activity_logs")
    acknowledged = {f"write {answer.number}" for answer in answers if answer.status == 200}
    assert acknowledged - {row["name"] for row in rows} == set()
