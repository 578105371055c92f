"""How many requests one process works on at once, and what becomes of the others.

Reads and writes have a bulkhead each, and neither may take the whole pool of connections: writers that are
stuck behind a locked row leave room for readers, and slow reads for writers. A request that finds no place
waits for at most `PLACE_WAIT_SECONDS`, together with a bounded number of others, and is then refused; beyond
that number requests are refused at once. So no request queues without end, whatever PostgreSQL does.

Health endpoints pass no bulkhead: the process answers them under any load.
"""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import structlog

from api.gate.errors import OverloadedError

logger = structlog.get_logger(__name__)

POOL_SIZE = 10
PLACES = 7  # of the pool, for reads as for writes: the other bulkhead always finds three connections
SEATS = 100
ADMIN_PLACES = 10  # a verification keeps its place while it waits, but no connection
BODY_PLACES = 100  # incomplete bodies in memory at once
PLACE_WAIT_SECONDS = 1.0


class Bulkhead:
    """Lets `places` requests work at once and `seats` others wait a moment, and refuses the rest."""

    def __init__(self, name: str, places: int, seats: int = 0) -> None:
        self._name = name
        self._places = asyncio.Semaphore(places)
        self._seats = seats
        self._waiting = 0
        self._refused = 0
        self.refused_in_all = 0

    @asynccontextmanager
    async def place(self) -> AsyncIterator[None]:
        """Hold a place while the body runs.

        Raises:
            OverloadedError: there is none, at once or after PLACE_WAIT_SECONDS.

        """
        if self._places.locked():
            await self._wait()
        else:
            await self._places.acquire()
        try:
            yield
        finally:
            self._places.release()
            self._note_relief()

    async def _wait(self) -> None:
        if self._waiting >= self._seats:
            self._refuse()
        self._waiting += 1
        try:
            async with asyncio.timeout(PLACE_WAIT_SECONDS):
                await self._places.acquire()
        except TimeoutError:
            self._refuse()
        finally:
            self._waiting -= 1

    def _refuse(self) -> None:
        """Refuse, and log the first refusal of many: overload must not fill the disk too."""
        if not self._refused:
            logger.warning("overloaded", lane=self._name)
        self._refused += 1
        self.refused_in_all += 1
        raise OverloadedError

    def _note_relief(self) -> None:
        if self._refused and not self._waiting:
            logger.info("overload_over", lane=self._name, refused=self._refused)
            self._refused = 0


@dataclass(frozen=True)
class Bulkheads:
    """The bulkheads of one process."""

    reads: Bulkhead = field(default_factory=lambda: Bulkhead("reads", PLACES, SEATS))
    writes: Bulkhead = field(default_factory=lambda: Bulkhead("writes", PLACES, SEATS))
    admin: Bulkhead = field(default_factory=lambda: Bulkhead("admin", ADMIN_PLACES, SEATS))
    bodies: Bulkhead = field(default_factory=lambda: Bulkhead("bodies", BODY_PLACES))
