"""Clients that take their time, against a real uvicorn process: nobody else waits for them."""

import asyncio
import contextlib
import time
from collections.abc import Iterator

import asyncpg
import httpx

from tests.api.clients import ALL, OWNER, P1
from tests.api.unhurried import running_unhurried
from tests.fuzz.raw import Connection, Received, connected, request
from tests.processes import HANG_SECONDS, environment

OWNER_HEADER = b"User-ID: " + OWNER["User-ID"].encode()
BY_LENGTH = request("POST", ALL, OWNER_HEADER, b"Content-Length: 100000"), b" "
BY_CHUNKS = request("POST", ALL, OWNER_HEADER, b"Transfer-Encoding: chunked"), b"1\r\n \r\n"
EACH = 20
MANY = """
    INSERT INTO collections (collection_id, project_id, collection_name, description, created_by, is_active)
    SELECT 'many ' || n, $1, 'x', repeat('x', 1000), created_by, true
    FROM generate_series(1, 300) AS n, (SELECT created_by FROM collections LIMIT 1) AS somebody
"""  # half a megabyte when listed, so that UNREAD answers are more than any socket's buffers take
UNREAD = 25


async def trickle(connection: Connection, head: bytes, piece: bytes) -> tuple[Received, float]:
    """Send the pieces slowly until an answer comes, and return it with the seconds that it took."""
    began = time.monotonic()
    await connection.send(head)
    answer = asyncio.create_task(connection.receive())
    while not answer.done():
        await connection.send(piece)
        await asyncio.wait([answer], timeout=0.2)
    return answer.result(), time.monotonic() - began


async def drip_headers(connection: Connection) -> None:
    """Never come to the end of the headers."""
    await connection.send(b"GET /healthz HTTP/1.1\r\nX: ")
    while await connection.send(b"x"):
        await asyncio.sleep(0.2)


@contextlib.contextmanager
def cancelled(*tasks: asyncio.Task[object]) -> Iterator[None]:
    try:
        yield
    finally:
        for task in tasks:
            task.cancel()


async def test_slow_clients_are_harmless(
    seeded: asyncpg.Connection, database_url: str, redis_url: str
) -> None:
    await seeded.execute(MANY, P1)
    env = environment(database_url, redis_url, BODY_SECONDS=str(2 * HANG_SECONDS))
    async with running_unhurried(env) as (api, port), contextlib.AsyncExitStack() as stack:

        async def connections() -> list[Connection]:
            return [await stack.enter_async_context(connected(port)) for _ in range(EACH)]

        await connections()  # which say nothing at all
        readers = (await connections())[:3]
        for reader in readers:
            await reader.send(request("GET", ALL, OWNER_HEADER) * UNREAD)
        slow: list[asyncio.Task[object]] = [
            asyncio.create_task(drip_headers(each)) for each in await connections()
        ]
        for body in (BY_LENGTH, BY_CHUNKS):
            slow += [asyncio.create_task(trickle(each, *body)) for each in await connections()]
        url = f"http://127.0.0.1:{port}"
        with cancelled(*slow):
            async with httpx.AsyncClient(base_url=url, headers=OWNER, timeout=HANG_SECONDS) as client:
                for _ in range(5):
                    assert (await client.get("/healthz")).status_code == 200
                    assert (await client.get(ALL)).status_code == 200
                    assert (await client.post(ALL, json={"collection_name": "x"})).status_code == 200
                    await asyncio.sleep(0.2)
            assert not any(task.done() for task in slow)  # uvicorn lets headers drip; a gateway must not
        late = await readers[0].receive(answers=UNREAD)
        assert late.statuses == [200] * UNREAD
        assert not api.logged("overloaded")
        assert not api.logged("database_unavailable")


async def test_slow_bodies_are_cut_off(seeded: asyncpg.Connection, database_url: str, redis_url: str) -> None:
    del seeded
    env = environment(database_url, redis_url, BODY_SECONDS="1")
    async with (
        running_unhurried(env) as (_, port),
        connected(port) as one,
        connected(port) as other,
    ):
        for answer, seconds in await asyncio.gather(trickle(one, *BY_LENGTH), trickle(other, *BY_CHUNKS)):
            assert answer.statuses == [408], answer
            assert b"connection: close" in answer.headers
            assert seconds >= 1
