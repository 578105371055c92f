"""Writers behind a load balancer: processes of both releases come into its rotation, and leave it."""

import asyncio
import contextlib
import itertools
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass, field

import httpx

from tests.processes import HANG_SECONDS

WRITERS = 6
HOT = [f"hot-{number}" for number in range(4)]  # all writers change these, and nobody deletes them
REST_SECONDS = 0.03
# A connection that client and server let go of at the same moment fails a request, whatever the release.
LIMITS = httpx.Limits(max_keepalive_connections=0)


@dataclass
class Rotation:
    """The API processes that requests go to, in turn, and every answer that was not what it should be."""

    clients: dict[str, httpx.AsyncClient] = field(default_factory=dict)
    answers: Counter[str] = field(default_factory=Counter)  # right ones, by API
    wrong: list[str] = field(default_factory=list)
    _under_way: Counter[str] = field(default_factory=Counter)
    _turn: Iterator[int] = field(default_factory=itertools.count)

    @contextlib.asynccontextmanager
    async def holding(self, name: str, url: str) -> AsyncIterator[None]:
        """Send requests to this process as well while the block runs; what is under way is answered first."""
        async with httpx.AsyncClient(
            base_url=url, headers={"User-ID": "owner"}, timeout=HANG_SECONDS, limits=LIMITS
        ) as client:
            self.clients[name] = client
            try:
                yield
            finally:
                del self.clients[name]
                while self._under_way[name]:
                    await asyncio.sleep(0.01)

    async def answered(self, name: str, more: int) -> None:
        """Wait until the process has answered so many more requests as it should."""
        wanted = self.answers[name] + more
        async with asyncio.timeout(HANG_SECONDS):
            while self.answers[name] < wanted:
                await asyncio.sleep(0.02)

    async def refused(self, name: str) -> str | None:
        """Write once to this process alone; return what was wrong with its answer, None when nothing was."""
        alone = Rotation({name: self.clients[name]})
        await alone.request("PUT", f"/{HOT[0]}", description="alone")
        self.answers += alone.answers
        return next(iter(alone.wrong), None)

    async def request(self, method: str, path: str, **body: str) -> httpx.Response | None:
        """Send a request to the process whose turn it is; None when the answer is not what it should be."""
        names = sorted(self.clients)
        name = names[next(self._turn) % len(names)]
        self._under_way[name] += 1
        try:
            response = await self.clients[name].request(
                method, f"/projects/p1/collections{path}", json=body or None
            )
        except httpx.TransportError as error:
            self.wrong.append(f"{name}: {method} {path}: {type(error).__name__}")
            return None
        finally:
            self._under_way[name] -= 1
        if response.status_code == 200:
            self.answers[name] += 1
            return response
        self.wrong.append(f"{name}: {method} {path}: {response.status_code} {response.text[:200]}")
        return None

    async def _write(self, number: int, stopped: asyncio.Event) -> None:
        """Create, change and delete: each step by whichever process has its turn."""
        for step in itertools.count():
            created = await self.request("POST", "", collection_name="new", description=f"{number}.{step}")
            own = f"/{created.json()['collection_id']}" if created else f"/{HOT[0]}"
            for path in (own, f"/{HOT[step % len(HOT)]}", own):
                await self.request("PUT", path, description=f"{number}.{step}, changed")
                await asyncio.sleep(REST_SECONDS)
            if created and step % 2:
                await self.request("DELETE", own)
            if stopped.is_set():
                return

    @contextlib.asynccontextmanager
    async def writing(self) -> AsyncIterator[None]:
        """Write as long as the block runs; all is answered at its end."""
        stopped = asyncio.Event()
        async with asyncio.TaskGroup() as writers:
            for number in range(WRITERS):
                writers.create_task(self._write(number, stopped))
            try:
                yield
            finally:
                stopped.set()
