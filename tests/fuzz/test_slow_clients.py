"""Clients that take their time, against a real uvicorn process: nobody else waits for them."""

import asyncio
import contextlib
import time
from urllib.parse import urlsplit

import asyncpg
import httpx
import pytest

from api.request_body import BODY_SECONDS
from tests.api.clients import ALL, OWNER, P1
from tests.fuzz.raw import Connection, Received, connected, request
from tests.processes import environment, running_api

OWNER_HEADER = b"User-ID: " + OWNER["User-ID"].encode()
EACH = 20
MANY = """
    INSERT INTO collections (collection_id, project_id, collection_name, description, created_by, is_active)
    SELECT 'many ' || n, $1, 'x', repeat('x', 1000), created_by, true
    FROM generate_series(1, 300) AS n, (SELECT created_by FROM collections LIMIT 1) AS somebody
"""  # half a megabyte when listed, so that UNREAD answers are more than any socket's buffers take
UNREAD = 40
PROMPTLY = 5.0  # on a busy machine; a place or a connection that is taken costs more than BODY_SECONDS


async def trickle(connection: Connection, head: bytes, piece: bytes) -> tuple[Received, float]:
    """Send the pieces slowly until an answer comes, and return it with the seconds that it took."""
    began = time.monotonic()
    await connection.send(head)
    answer = asyncio.create_task(connection.receive(3 * BODY_SECONDS))
    while not answer.done():
        await connection.send(piece)
        await asyncio.wait([answer], timeout=0.2)
    return answer.result(), time.monotonic() - began


async def drip_headers(connection: Connection) -> None:
    """Never come to the end of the headers."""
    await connection.send(b"GET /healthz HTTP/1.1\r\nX: ")
    while await connection.send(b"x"):
        await asyncio.sleep(0.2)


@pytest.mark.slow
async def test_slow_clients_are_cut_off_or_harmless(
    seeded: asyncpg.Connection, database_url: str, redis_url: str
) -> None:
    by_length = request("POST", ALL, OWNER_HEADER, b"Content-Length: 100000")
    by_chunks = request("POST", ALL, OWNER_HEADER, b"Transfer-Encoding: chunked")
    unread = request("GET", ALL, OWNER_HEADER) * UNREAD
    await seeded.execute(MANY, P1)
    async with (
        running_api(environment(database_url, redis_url)) as (api, url),
        contextlib.AsyncExitStack() as stack,
    ):
        port = urlsplit(url).port
        assert port is not None

        async def connections() -> list[Connection]:
            return [await stack.enter_async_context(connected(port)) for _ in range(EACH)]

        await connections()  # which say nothing at all
        drips = [asyncio.create_task(drip_headers(each)) for each in await connections()]
        readers = (await connections())[:5]
        for reader in readers:
            await reader.send(unread)
        bodies = [asyncio.create_task(trickle(each, by_length, b" ")) for each in await connections()]
        bodies += [
            asyncio.create_task(trickle(each, by_chunks, b"1\r\n \r\n")) for each in await connections()
        ]
        await asyncio.sleep(1)
        async with httpx.AsyncClient(base_url=url, headers=OWNER, timeout=PROMPTLY) as client:
            while not all(body.done() for body in bodies):
                assert (await client.get("/healthz")).status_code == 200
                assert (await client.get(ALL)).status_code == 200
                assert (await client.post(ALL, json={"collection_name": "x"})).status_code == 200
                await asyncio.sleep(0.2)
        for answer, seconds in await asyncio.gather(*bodies):
            assert answer.statuses == [408], answer
            assert b"connection: close" in answer.headers
            assert BODY_SECONDS - 1 < seconds < BODY_SECONDS + PROMPTLY
        assert not any(drip.done() for drip in drips)  # uvicorn lets them; a gateway must not
        for drip in drips:
            drip.cancel()
        await asyncio.wait(drips)
        late = await readers[0].receive(30, answers=UNREAD)
        assert late.statuses == [200] * UNREAD
        assert not api.logged("overloaded")
        assert not api.logged("database_unavailable")
