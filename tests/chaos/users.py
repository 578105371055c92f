"""Users who create, change and delete collections through both APIs at a steady rate, and remember it all.

A collection has one writer at a time, so that it is known which acknowledged write was its last.
"""

import asyncio
import contextlib
import random
import time
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from enum import StrEnum
from functools import partial

import httpx

from tests.processes import HANG_SECONDS

PROJECT = "p1"
WANTED_COLLECTIONS = 60
STREAK = 5  # answers in a row
FEWEST_PER_SECOND = 5
MOST_WAITING = 40  # for one API: on a machine that is busy the load must not grow without end
NOT_FOUND = 404


class Kind(StrEnum):
    """What a write does; the names are those of the event types."""

    CREATE = "created"
    UPDATE = "updated"
    DELETE = "deleted"


@dataclass(frozen=True)
class Write:
    """A request and what came of it: no status when no answer came. `began` is monotonic."""

    number: int
    kind: Kind
    api: int
    collection_id: str | None
    began: float
    seconds: float
    status: int | None
    retry_after: str | None

    @property
    def acknowledged(self) -> bool:
        return self.status == 200

    @property
    def in_doubt(self) -> bool:
        """Say whether it may have been committed although nobody said so."""
        return self.status is None or self.status >= 500

    @property
    def answered(self) -> bool:
        """Say whether the API did its work; a collection may be gone by a deletion that was in doubt."""
        return self.acknowledged or self.status == NOT_FOUND


def name_of(number: int) -> str:
    return f"write {number}"


def text_of(number: int) -> str:
    return f"text {number}"


class Users:
    """Begins a write at each of its times, whatever became of the others."""

    def __init__(self, clients: Sequence[httpx.AsyncClient], dice: random.Random, per_second: int) -> None:
        self.writes: list[Write] = []  # in the order of their ends
        self.per_second = per_second
        self._clients = clients
        self._dice = dice
        self._idle: list[str] = []
        self._number = 0
        self._requests: set[asyncio.Task[None]] = set()
        self._waiting = Counter[int]()

    @contextlib.asynccontextmanager
    async def at_work(self) -> AsyncIterator[None]:
        """Write for as long as the block, then wait for the last answer."""
        running = asyncio.create_task(self._run(), name="users")
        try:
            yield
        finally:
            running.cancel()
            await asyncio.wait([running])
            await asyncio.gather(*self._requests)

    async def answered_again(self, since: float) -> float:
        """Wait until both APIs do their work; return for how long after `since` one of them did not."""
        while True:
            seconds = [self._silence(api, since) for api in range(len(self._clients))]
            known = [second for second in seconds if second is not None]
            if len(known) == len(seconds):
                return max(known)
            await asyncio.sleep(0.05)

    def slow_down(self) -> None:
        """Halve the load: the machine may be too busy with others for what we ask of it."""
        self.per_second = max(self.per_second // 2, FEWEST_PER_SECOND)

    def _silence(self, api: int, since: float) -> float | None:
        """Return how long after `since` the first write of an unbroken row of answered ones began."""
        writes = sorted(
            (write for write in self.writes if write.api == api and write.began >= since),
            key=lambda write: write.began,
        )
        row = 0
        while row < len(writes) and writes[-1 - row].answered:
            row += 1
        if row < STREAK:
            return None
        return 0.0 if row == len(writes) else writes[-row].began - since

    async def _run(self) -> None:
        due = time.monotonic()
        while True:
            await asyncio.sleep(due - time.monotonic())
            self._begin(self._number % len(self._clients))
            self._number += 1
            due += 1 / self.per_second

    def _begin(self, api: int) -> None:
        """Begin a write, unless so many wait for this API already that its users have given up."""
        if self._waiting[api] >= MOST_WAITING:
            return
        self._waiting[api] += 1
        request = asyncio.create_task(self._write(self._number))
        self._requests.add(request)
        request.add_done_callback(partial(self._end, api))

    def _end(self, api: int, request: asyncio.Task[None]) -> None:
        self._waiting[api] -= 1
        self._requests.discard(request)

    def _choose(self) -> tuple[Kind, str | None]:
        if len(self._idle) < WANTED_COLLECTIONS // 4 or self._dice.random() < 0.2:
            return Kind.CREATE, None
        collection_id = self._idle.pop(self._dice.randrange(len(self._idle)))
        is_crowded = len(self._idle) > WANTED_COLLECTIONS
        kind = Kind.DELETE if self._dice.random() < (0.5 if is_crowded else 0.1) else Kind.UPDATE
        return kind, collection_id

    async def _write(self, number: int) -> None:
        kind, collection_id = self._choose()
        api, began = number % len(self._clients), time.monotonic()
        try:
            response = await self._send(self._clients[api], kind, collection_id, number)
        except (httpx.TransportError, AttributeError):  # anyio, of a socket that closed in the same moment
            status = retry_after = None
        else:
            status, retry_after = response.status_code, response.headers.get("Retry-After")
            if kind is Kind.CREATE and status == 200:
                collection_id = response.json()["collection_id"]
        seconds = time.monotonic() - began
        write = Write(number, kind, api, collection_id, began, seconds, status, retry_after)
        self.writes.append(write)
        is_gone = status == NOT_FOUND or (kind is Kind.DELETE and write.acknowledged)
        if collection_id is not None and not is_gone:
            self._idle.append(collection_id)

    async def _send(
        self, client: httpx.AsyncClient, kind: Kind, collection_id: str | None, number: int
    ) -> httpx.Response:
        path = f"/projects/{PROJECT}/collections"
        body = {"collection_name": name_of(number), "description": text_of(number)}
        if kind is Kind.CREATE:
            return await client.post(path, json=body)
        if kind is Kind.DELETE:
            return await client.delete(f"{path}/{collection_id}")
        return await client.put(f"{path}/{collection_id}", json=body)


@contextlib.asynccontextmanager
async def users(urls: Sequence[str], dice: random.Random, per_second: int) -> AsyncIterator[Users]:
    """Make users with one client for each API."""
    limits = httpx.Limits(max_connections=None, max_keepalive_connections=20)
    async with contextlib.AsyncExitStack() as stack:
        clients = [
            await stack.enter_async_context(
                httpx.AsyncClient(
                    base_url=url, headers={"User-ID": "owner"}, timeout=HANG_SECONDS, limits=limits
                )
            )
            for url in urls
        ]
        yield Users(clients, dice, per_second)
