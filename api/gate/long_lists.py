"""What the long lists of one process share: whose turn it is, and a line in the log once in a while."""

import asyncio
import math
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import structlog

from api.gate.identification import identification

logger = structlog.get_logger(__name__)

LONG = 10_000  # collections
SECONDS_BETWEEN_LINES = 60.0


class LongLists:
    """Lets lists be made a piece at a time, of all of them one in each round of the loop.

    So however many are under way, what else the process does waits for one piece at most.
    """

    def __init__(self) -> None:
        self._turn = asyncio.Lock()
        self._next_line = -math.inf  # monotonic

    @asynccontextmanager
    async def turn(self) -> AsyncIterator[None]:
        """Wait for the turn; when the body has made its piece, whatever else is ready comes first."""
        async with self._turn:
            yield
            await asyncio.sleep(0)

    def note(self, project_id: str, collections: int) -> None:
        """Log that a list was long, unless another was logged a moment ago."""
        if collections > LONG and time.monotonic() >= self._next_line:
            self._next_line = time.monotonic() + SECONDS_BETWEEN_LINES
            logger.warning("long_list", project_id=project_id, collections=collections, **identification())
