"""The sampler: which lists are compared, when, and how little users notice.

A list is compared once its user has the answer, on connections of the sampler's own, a few at once; whatever
goes wrong is counted, and is no user's error. Which side answers is not decided here: the view asks the row.
"""

import asyncio
import math
import random
import time
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

import asyncpg
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.ext.asyncio import AsyncEngine
from starlette.background import BackgroundTask

from api.gate.identification import identification
from api.shadow.counts import Counts, Sums
from api.shadow.mismatches import Found, Mismatches, keep
from shared.phase.comparison import LOOK, Outcome, compare
from shared.planner import PLANNED_ONCE, REQUESTS
from shared.postgres.database import create_engine, driver_connection
from shared.postgres.faults import OF_THE_DRIVER
from shared.postgres.pooler import PoolerError
from shared.settings import Settings

CONNECTIONS = AT_ONCE = 2
STATEMENT_TIMEOUT_SECONDS = 2
LOCK_TIMEOUT = "200ms"  # where another session locks the target
LOOK_SECONDS = 5.0  # between looks whether lists are compared at all
STORE_SECONDS = 3.0
LAST_SECONDS = 2.0  # to store, when the process ends
FAULTS = (SQLAlchemyError, *OF_THE_DRIVER, OSError, TimeoutError, PoolerError)


def shadow_engine(settings: Settings) -> AsyncEngine:
    """Make the engine of the comparisons, which takes no connection from users."""
    return create_engine(
        settings,
        application_name="collection-sync shadow",
        pool_size=CONNECTIONS,
        statement_timeout_seconds=STATEMENT_TIMEOUT_SECONDS,
        session=REQUESTS | PLANNED_ONCE | {"lock_timeout": LOCK_TIMEOUT},
        checks_sequences=False,
    )


class Shadow:
    """Compares a sample of one process's lists.

    Args:
        engine: of the comparisons.
        share: of the lists, from 0 to 1.

    """

    def __init__(self, engine: AsyncEngine, share: float) -> None:
        self._engine = engine
        self._share = share
        self._epoch: int | None = None  # of the last look; None: nothing is to be compared
        self._next_look = -math.inf  # monotonic
        self._at_work: set[asyncio.Task[None]] = set()
        self.counts = Counts()
        self.mismatches = Mismatches()

    def sampled(self, project_id: str) -> BackgroundTask | None:
        """Return what is to be done when the project's list is sent; None: it is not of the sample."""
        if random.random() >= self._share:  # noqa: S311 - chance, not a secret
            return None
        if self._epoch is None and time.monotonic() < self._next_look:
            return None
        return BackgroundTask(self._begin, project_id)

    async def _begin(self, project_id: str) -> None:
        """Begin to compare, beside all else; the caller's request ends meanwhile."""
        if len(self._at_work) >= AT_ONCE:
            self._count(Outcome.DROPPED)
            return
        if self._epoch is None:
            self._next_look = time.monotonic() + LOOK_SECONDS
        task = asyncio.create_task(self._compare(project_id), name="shadow")
        self._at_work.add(task)
        task.add_done_callback(self._at_work.discard)

    def _count(self, outcome: Outcome) -> None:
        if self._epoch is not None:
            self.counts.note(self._epoch, Sums(Counter([outcome])))

    async def _compare(self, project_id: str) -> None:
        try:
            async with driver_connection(self._engine) as connection:
                if self._epoch is None:
                    self._epoch = await connection.fetchval(LOOK)
                found = None if self._epoch is None else await self._found(connection, project_id)
        except FAULTS:
            self._count(Outcome.FAILED)
            return
        if found is not None:
            await self._report(found)

    async def _found(self, connection: asyncpg.Connection, project_id: str) -> Found | None:
        comparison = await compare(connection, project_id)
        if comparison is None:
            self._epoch = None
            return None
        self._epoch = comparison.epoch
        self.counts.note(comparison.epoch, Sums.of(comparison))
        return Found(project_id, comparison) if comparison.mismatches else None

    async def _report(self, found: Found) -> None:
        """Fall back first: what fails of it is tried again with the next storing. Findings come again."""
        self.mismatches.log(found, identification())
        self.mismatches.note(found)
        with suppress(*FAULTS):
            async with driver_connection(self._engine) as connection:
                await self.mismatches.fall_back(connection)
        with suppress(*FAULTS):
            async with driver_connection(self._engine) as connection:
                await keep(connection, found)

    async def store(self) -> None:
        """Store what was counted, and do what is left to do about mismatches."""
        if not (self.counts.is_stored and self.mismatches.is_settled):
            async with driver_connection(self._engine) as connection:
                await self.mismatches.fall_back(connection)
                await self.counts.store(connection)

    async def _store_now_and_then(self) -> None:
        while True:
            await asyncio.sleep(STORE_SECONDS)
            with suppress(*FAULTS):
                await self.store()
            self.counts.log()

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Store every few seconds, and last when the body ends; what is under way then is given up."""
        storing = asyncio.create_task(self._store_now_and_then(), name="shadow counts")
        try:
            yield
        finally:
            ended = {storing, *self._at_work}
            for task in ended:
                task.cancel()
            await asyncio.wait(ended)
            with suppress(*FAULTS):
                async with asyncio.timeout(LAST_SECONDS):
                    await self.store()
            self.counts.log(at_once=True)
