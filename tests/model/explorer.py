"""Every order in which the statements of several actors can reach one PostgreSQL.

An actor is a coroutine with a connection of its own. Each of its statements waits at a turnstile until
the scheduler lets it through; then the scheduler waits until nobody moves any more: every actor stands
at its turnstile again, has ended, or waits for a lock that another one holds, which PostgreSQL itself
says (`pg_blocking_pids`), no clock. Then it chooses again. `explore` goes through all choices, depth
first, and replays each prefix: a replay that meets other choices than before is a failure.
"""

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable, Collection, Sequence
from dataclasses import dataclass, field
from typing import Any

import asyncpg

from tests.model.stepping import SteppedConnection, open_turnstile
from tests.processes import HANG_SECONDS

# How long to look only at Python before PostgreSQL is asked. It decides the pace, never the verdict.
GLANCE_SECONDS = 0.001

# Of those who move, who waits for a lock of another actor? Whoever holds it does not move either.
BLOCKED = """
    SELECT count(*) FROM unnest($1::integer[]) AS moving (pid)
    WHERE pg_blocking_pids(moving.pid) && $2::integer[]
"""


class StuckError(AssertionError):
    """Nobody can go on: a deadlock, or a lock of somebody unknown."""


class UnrepeatableError(AssertionError):
    """The same choices led to another place: a search over them would prove nothing."""


@dataclass(eq=False)
class Actor:
    """Somebody whose statements are let through one by one.

    Args:
        name: a letter or word, for schedules.
        connection: the only one that `work` uses.
        work: called anew for each schedule.
        unstepped: names of statements that need no permission.

    """

    name: str
    connection: SteppedConnection
    work: Callable[[], Awaitable[Any]]
    unstepped: Collection[str] = ()
    task: asyncio.Task[Any] | None = None
    gate: asyncio.Future[None] | None = None
    step: str = ""
    moved: asyncio.Event = field(default_factory=asyncio.Event)

    @property
    def pid(self) -> int:
        pid: int = self.connection.get_server_pid()
        return pid

    def start(self, moved: asyncio.Event) -> None:
        self.moved, self.gate = moved, None
        self.connection.before = self._wait
        self.task = asyncio.ensure_future(self.work())
        self.task.add_done_callback(lambda _: moved.set())

    async def stop(self) -> None:
        self.connection.before = open_turnstile
        if self.task is not None and not self.task.done():
            self.task.cancel()
            await asyncio.wait([self.task])

    async def _wait(self, step: str) -> None:
        if step in self.unstepped:
            return
        self.step, self.gate = step, asyncio.get_running_loop().create_future()
        self.moved.set()
        await self.gate

    @property
    def has_ended(self) -> bool:
        return self.task is not None and self.task.done()

    @property
    def is_ready(self) -> bool:
        return not self.has_ended and self.gate is not None

    @property
    def is_moving(self) -> bool:
        return not self.has_ended and self.gate is None

    def go(self) -> None:
        gate, self.gate = self.gate, None
        assert gate is not None
        gate.set_result(None)


@dataclass
class Choice:
    """A moment at which several actors were ready, and which of them went."""

    ready: tuple[str, ...]
    taken: int = 0


@dataclass
class Schedule:
    """One whole order of steps, as `A:claim B:claim …`, and what each actor returned or raised."""

    steps: list[str]
    results: dict[str, Any]
    waits: int

    def __str__(self) -> str:
        return " ".join(self.steps)


async def explore(
    actors: Sequence[Actor], observer: asyncpg.Connection, prepare: Callable[[], Awaitable[None]]
) -> AsyncGenerator[Schedule, None]:
    """Go through every schedule of the actors, each from the state that `prepare` makes.

    Raises:
        StuckError: nobody could go on.
        UnrepeatableError: a replay met other choices than the run before it.

    """
    path: list[Choice] = []
    while True:
        await prepare()
        yield await _Run(actors, observer, path).to_the_end()
        while path and path[-1].taken == len(path[-1].ready) - 1:
            path.pop()
        if not path:
            return
        path[-1].taken += 1


@dataclass
class _Run:
    actors: Sequence[Actor]
    observer: asyncpg.Connection
    path: list[Choice]
    depth: int = 0
    steps: list[str] = field(default_factory=list)
    waits: int = 0
    moved: asyncio.Event = field(default_factory=asyncio.Event)

    async def to_the_end(self) -> Schedule:
        try:
            for actor in self.actors:
                actor.start(self.moved)
            await self._until_quiet()
            while ready := [actor for actor in self.actors if actor.is_ready]:
                await self._let_through(self._choose(ready))
            if any(not actor.has_ended for actor in self.actors):
                raise StuckError(" ".join(self.steps))
        finally:
            for actor in self.actors:
                await actor.stop()
        return Schedule(self.steps, {actor.name: _result(actor) for actor in self.actors}, self.waits)

    def _choose(self, ready: list[Actor]) -> Actor:
        names = tuple(f"{actor.name}:{actor.step}" for actor in ready)
        if self.depth == len(self.path):
            self.path.append(Choice(names))
        choice = self.path[self.depth]
        if choice.ready != names:
            raise UnrepeatableError(f"{' '.join(self.steps)}: {choice.ready} before, {names} now")
        self.depth += 1
        return ready[choice.taken]

    async def _let_through(self, actor: Actor) -> None:
        self.steps.append(f"{actor.name}:{actor.step}")
        self.moved.clear()
        actor.go()
        await self._glance()
        await self._until_quiet()
        if actor.is_moving:
            self.waits += 1
            self.steps[-1] += "…"

    async def _until_quiet(self) -> None:
        async with asyncio.timeout(HANG_SECONDS):
            while moving := [actor for actor in self.actors if actor.is_moving]:
                self.moved.clear()
                if await self._all_blocked(moving):
                    return
                await self._glance()

    async def _all_blocked(self, moving: list[Actor]) -> bool:
        everybody = [actor.pid for actor in self.actors]
        blocked = await self.observer.fetchval(BLOCKED, [actor.pid for actor in moving], everybody)
        return bool(blocked == len(moving))

    async def _glance(self) -> None:
        try:
            await asyncio.wait_for(self.moved.wait(), GLANCE_SECONDS)
        except TimeoutError:
            return


def _result(actor: Actor) -> object:
    assert actor.task is not None
    return actor.task.exception() or actor.task.result()
