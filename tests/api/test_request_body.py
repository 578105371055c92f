"""Bodies that are too long or too slow: refused early, and nobody else waits for them."""

import asyncio
import itertools
import tracemalloc
from collections.abc import AsyncIterator

import asyncpg
import httpx
import pytest
from fastapi import FastAPI
from pydantic import SecretStr
from starlette.types import Message, Scope
from structlog.testing import capture_logs

from api.gate import body as request_body
from api.gate.admission import BODY_PLACES
from api.gate.body import MAX_BODY_BYTES, MAX_DISCARDED_BYTES
from api.main import create_app
from shared.settings import Settings
from tests.api.clients import ALL, OWNER, SEEDED, create, started
from tests.processes import HANG_SECONDS

TOO_LARGE = {"detail": "The body is too large"}
TOO_SLOW = {"detail": "The body did not arrive in time"}


def body_of(size: int) -> bytes:
    """Return a valid body of so many bytes."""
    return b'{"collection_name": "x"}'.ljust(size)


def assert_too_large(answer: httpx.Response) -> None:
    assert (answer.status_code, answer.json()) == (413, TOO_LARGE)
    assert answer.headers["Connection"] == "close"


class Chunks:
    """A body without an announced length; counts what was asked for."""

    def __init__(self, chunk: bytes, count: int) -> None:
        self._chunk = chunk
        self._count = count
        self.sent = 0

    async def __aiter__(self) -> AsyncIterator[bytes]:
        for _ in range(self._count):
            self.sent += len(self._chunk)
            yield self._chunk


class Trickle:
    """A body whose end does not come before it is told to."""

    def __init__(self) -> None:
        self.is_read = asyncio.Event()
        self.ends = asyncio.Event()

    async def __aiter__(self) -> AsyncIterator[bytes]:
        for piece in itertools.chain([b"{"], itertools.repeat(b" ")):
            if self.ends.is_set():
                return
            yield piece
            self.is_read.set()
            await asyncio.sleep(0.02)


async def test_a_body_of_just_the_limit_is_taken_and_one_byte_more_is_not(client: httpx.AsyncClient) -> None:
    for method, path in (("POST", ALL), ("PUT", SEEDED)):
        for size, status in ((MAX_BODY_BYTES, 200), (MAX_BODY_BYTES + 1, 413)):
            answer = await client.request(method, path, headers=OWNER, content=body_of(size))
            assert answer.status_code == status
            chunked = Chunks(body_of(size), 1)
            assert (await client.request(method, path, headers=OWNER, content=chunked)).status_code == status


async def test_a_body_without_an_announced_length_is_counted_while_it_is_read(
    client: httpx.AsyncClient,
) -> None:
    endless = Chunks(b" " * 65_536, 10_000)
    assert_too_large(await client.post(ALL, headers=OWNER, content=endless))
    assert MAX_DISCARDED_BYTES < endless.sent <= MAX_BODY_BYTES + MAX_DISCARDED_BYTES + 65_536


async def test_of_a_body_that_is_too_long_only_a_part_is_ever_kept(client: httpx.AsyncClient) -> None:
    tracemalloc.start()
    try:
        answer = await client.post(ALL, headers=OWNER, content=Chunks(b" " * 65_536, 200))
        _, most = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert_too_large(answer)
    assert most < 4 * MAX_BODY_BYTES  # of the 12.5 MiB that came


def scope_of_a_post(*headers: tuple[bytes, bytes]) -> Scope:
    return {
        "type": "http",
        "method": "POST",
        "path": ALL,
        "raw_path": ALL.encode(),
        "query_string": b"",
        "headers": headers,
    }


@pytest.mark.parametrize(
    "headers",
    [
        [(b"content-length", b"%d" % (MAX_DISCARDED_BYTES + 1))],
        [(b"content-length", b"1" + b"0" * 30)],
        [(b"content-length", b"9" * 5_000)],
        [(b"content-length", b"%d" % (MAX_BODY_BYTES + 1)), (b"expect", b"100-continue")],
    ],
    ids=["far", "farther", "no number", "asks first"],
)
async def test_an_announced_length_is_enough_to_refuse_without_reading(
    client: httpx.AsyncClient, app: FastAPI, headers: list[tuple[bytes, bytes]]
) -> None:
    del client  # asked for so that the app is started
    sent: list[Message] = []

    async def receive() -> Message:
        pytest.fail("the body was read")

    async def send(message: Message) -> None:
        sent.append(message)

    await app(scope_of_a_post(*headers), receive, send)
    assert sent[0]["status"] == 413


async def test_a_length_that_is_no_number_or_a_lie_does_not_hide_the_bytes(client: httpx.AsyncClient) -> None:
    for length in ("5", "0", "-1", "nonsense", "²"):
        headers = httpx.Headers({**OWNER, "Content-Length": length}, encoding="latin-1")
        answer = await client.post(ALL, headers=headers, content=Chunks(b" " * 65_536, 20))
        assert_too_large(answer)


async def test_the_gate_comes_before_the_size_and_the_size_before_everything_else(
    settings: Settings, seeded: asyncpg.Connection
) -> None:
    del seeded
    changes = {"read_only_mode": True, "gateway_token": SecretStr("g"), "admin_token": SecretStr("a")}
    too_large = body_of(MAX_BODY_BYTES + 1)
    async with started(create_app(settings.model_copy(update=changes))) as client:
        assert (await client.post(ALL, content=too_large)).status_code == 401
        assert (await client.post("/admin/backfill", content=too_large)).status_code == 401
        assert_too_large(await client.post(ALL, headers={"X-Gateway-Token": "g"}, content=too_large))
        assert_too_large(
            await client.post("/admin/backfill", headers={"X-Admin-Token": "a"}, content=too_large)
        )


async def test_an_endpoint_that_takes_no_body_does_not_look_at_one(client: httpx.AsyncClient) -> None:
    unread = Chunks(b" " * 65_536, 100)
    answer = await client.request("DELETE", await create(client), headers=OWNER, content=unread)
    assert (answer.status_code, unread.sent) == (200, 0)


async def test_a_body_that_does_not_end_is_given_up(
    client: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(request_body, "BODY_SECONDS", 0.2)
    answer = await client.post(ALL, headers=OWNER, content=Trickle())
    assert (answer.status_code, answer.json(), answer.headers["Connection"]) == (408, TOO_SLOW, "close")


async def test_slow_bodies_take_neither_place_nor_connection_from_others(
    client: httpx.AsyncClient, app: FastAPI, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(request_body, "BODY_SECONDS", HANG_SECONDS)
    bodies = [Trickle() for _ in range(30)]
    slow = [asyncio.create_task(client.post(ALL, headers=OWNER, content=body)) for body in bodies]
    for body in bodies:
        await body.is_read.wait()
    assert app.state.collection_sync.engine.pool.checkedout() == 0
    assert (await client.delete(await create(client), headers=OWNER)).status_code == 200
    assert (await client.get(ALL, headers=OWNER)).status_code == 200
    assert not any(task.done() for task in slow)
    for body in bodies:
        body.ends.set()
    assert {answer.status_code for answer in await asyncio.gather(*slow)} == {422}  # a brace is no JSON


async def test_slow_bodies_are_bounded_in_number(
    client: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(request_body, "BODY_SECONDS", HANG_SECONDS)
    bodies = [Trickle() for _ in range(BODY_PLACES + 1)]
    slow = [asyncio.create_task(client.post(ALL, headers=OWNER, content=body)) for body in bodies]
    done, _ = await asyncio.wait(slow, return_when=asyncio.FIRST_COMPLETED)
    assert [task.result().status_code for task in done] == [503]
    assert (await client.get(ALL, headers=OWNER)).status_code == 200
    for body in bodies:
        body.ends.set()
    statuses = sorted(answer.status_code for answer in await asyncio.gather(*slow))
    assert statuses == [422] * BODY_PLACES + [503]


async def test_a_client_that_goes_away_in_mid_body_is_no_fault_of_ours(
    client: httpx.AsyncClient, app: FastAPI
) -> None:
    del client
    messages: list[Message] = [
        {"type": "http.request", "body": b"{", "more_body": True},
        {"type": "http.disconnect"},
    ]
    statuses: list[int] = []

    async def receive() -> Message:
        return messages.pop(0)

    async def send(message: Message) -> None:
        statuses.append(message.get("status", 0))

    with capture_logs() as lines:
        await app(scope_of_a_post(), receive, send)
    assert (statuses[0], lines) == (400, [])
