"""The stage on which scenes are played: workers A and B, perhaps a writer W, each with one connection."""

import contextlib
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import dataclass

import asyncpg
import pytest
from sqlalchemy.ext.asyncio import AsyncEngine

from tests.draining import run_once
from tests.model import scenes
from tests.model.explorer import Actor, Schedule, explore
from tests.model.scenes import Scene
from tests.model.stepping import SteppedConnection, connection_of, stepped_engine
from worker.relay.batch import Batch

# BEGIN takes neither a lock nor a snapshot: it cannot matter when it comes. `every_step` proves it.
IMMATERIAL = ("BEGIN", "lock timeout")
# Who waits for a lock waits for the scheduler: no clock may decide.
PATIENT = "SET LOCAL lock_timeout = '1h'"


@dataclass
class Stage:
    """What plays a scene, and whoever looks at it and clears up after each schedule."""

    sql: asyncpg.Connection
    workers: list[AsyncEngine]
    connections: list[SteppedConnection]
    writer: SteppedConnection
    cleaner: AsyncEngine

    async def play(self, scene: Scene, *, every_step: bool = False) -> int:
        """Play every schedule of the scene and return their number.

        Raises:
            AssertionError: after one of them something is wrong; the message shows the schedule.

        """
        number = 0
        async with contextlib.aclosing(self.judged(scene, every_step=every_step)) as played:
            async for schedule, wrong in played:
                number += 1
                assert not wrong, f"{scene}, schedule {number}: {schedule}\n" + "\n".join(wrong)
        return number

    async def judged(
        self, scene: Scene, *, every_step: bool = False
    ) -> AsyncGenerator[tuple[Schedule, list[str]], None]:
        """Yield every schedule of the scene with what is wrong after it."""
        writer = self.writer if scene.late else None
        schedules = explore(
            self._actors(scene, every_step=every_step),
            self.sql,
            lambda: scenes.set_up(self.sql, scene, writer),
        )
        async with contextlib.aclosing(schedules):
            async for schedule in schedules:
                rest = await self._drained()
                yield schedule, await scenes.faults(self.sql, scene, schedule, rest)

    def _actors(self, scene: Scene, *, every_step: bool) -> list[Actor]:
        unstepped = () if every_step else IMMATERIAL
        actors = [
            Actor(name, connection, _relaying(engine, sizes), unstepped)
            for name, connection, engine, sizes in zip(
                "AB", self.connections, self.workers, scene.batches, strict=True
            )
        ]
        return [*actors, Actor("W", self.writer, _committing(self.writer))] if scene.late else actors

    async def _drained(self) -> list[Batch]:
        """Settle what the workers left, as the next batch of any worker would."""
        rest: list[Batch] = []
        if not await self.sql.fetchval("SELECT count(*) FROM outbox_events"):
            return rest
        while (batch := await run_once(self.cleaner)).events:
            rest.append(batch)
        return rest


def _relaying(engine: AsyncEngine, sizes: Sequence[int]) -> Callable[[], Awaitable[list[Batch]]]:
    async def work() -> list[Batch]:
        return [await run_once(engine, size) for size in sizes]

    return work


def _committing(connection: SteppedConnection) -> Callable[[], Awaitable[list[Batch]]]:
    """All but the writer's COMMIT was done when the scene was set."""

    async def work() -> list[Batch]:
        await connection.execute("COMMIT")
        return []

    return work


@contextlib.asynccontextmanager
async def opened(database_url: str, sql: asyncpg.Connection) -> AsyncIterator[Stage]:
    """Set up the stage in a database with the three projects, and take it down."""
    await scenes.install(sql)
    async with contextlib.AsyncExitStack() as stack:
        patch = stack.enter_context(pytest.MonkeyPatch.context())
        patch.setattr("worker.relay.run.ISOLATED", PATIENT)
        engines = [stepped_engine(database_url) for _ in range(4)]
        for engine in engines:
            stack.push_async_callback(engine.dispose)
        first, second, writer, cleaner = engines
        connections = [await connection_of(engine) for engine in (first, second)]
        yield Stage(sql, [first, second], connections, await connection_of(writer), cleaner)
