"""Storms of writes with a worker that lags behind, and comparisons all the while."""

import asyncio
import itertools
import random
from collections import Counter
from dataclasses import dataclass, field

import asyncpg
from sqlalchemy.ext.asyncio import AsyncEngine

from shared.phase.comparison import Comparison, compare
from shared.postgres.database import driver_connection
from tests.draining import run_once
from tests.race.storm import insert_all, write

KEYS = [f"hot {number:02}" for number in range(30)]
WRITERS = 4
COMPARERS = 3
BATCH_SIZE = 7  # so that most of what is written waits
COMPARISONS_A_BATCH = 3


@dataclass
class Storm:
    """One on a project of hot collections, until so many comparisons were made."""

    engine: AsyncEngine
    comparisons: int
    outcomes: Counter[str] = field(default_factory=Counter)
    batches: int = 0

    @property
    def is_over(self) -> bool:
        return self.outcomes.total() >= self.comparisons

    async def rage(self) -> None:
        await insert_all(self.engine, KEYS)
        async with asyncio.TaskGroup() as group:
            for seed in range(WRITERS):
                group.create_task(self._write(random.Random(seed)))  # noqa: S311 - a storm
            group.create_task(self._work_slowly())
            for _ in range(COMPARERS):
                group.create_task(self._compare())

    async def _write(self, dice: random.Random) -> None:
        for number in itertools.count():
            if self.is_over:
                return
            async with self.engine.begin() as connection:
                await write(connection, dice.choice(KEYS), f"text {number}")

    async def _work_slowly(self) -> None:
        """Settle a batch for so many comparisons, however long they take."""
        while not self.is_over:
            if self.outcomes.total() >= COMPARISONS_A_BATCH * self.batches:
                await run_once(self.engine, BATCH_SIZE)
                self.batches += 1
            await asyncio.sleep(0.001)

    async def _compare(self) -> None:
        async with driver_connection(self.engine) as connection:
            while not self.is_over:
                self.outcomes[(await compared(connection)).outcome] += 1


async def compared(connection: asyncpg.Connection) -> Comparison:
    comparison = await compare(connection, "p1")
    assert comparison is not None
    return comparison
