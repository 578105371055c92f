"""Processes that are started again when they end, as systemd does it; every line of every life is kept."""

import asyncio
import contextlib
import signal
import time
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from dataclasses import dataclass

from tests.processes import Running

LOOK_SECONDS = 0.02
RESTART_SECONDS = 0.3


class Life(Running):
    """One process, from its start to its end, that also remembers when each line came."""

    def __init__(self, arguments: list[str], env: Mapping[str, str]) -> None:
        self.arrivals: list[float] = []  # monotonic; of `lines`
        self.was_killed = False
        super().__init__(arguments, env)

    def _read(self) -> None:
        assert self.process.stdout is not None
        with self.process.stdout as stdout:
            for line in stdout:
                self.arrivals.append(time.monotonic())
                self.lines.append(line)


@dataclass(frozen=True)
class End:
    """A life that ended before we wanted it to, with the process's status."""

    pid: int
    code: int
    was_killed: bool


class Supervised:
    """One of the product's processes."""

    def __init__(self, name: str, arguments: Sequence[str], env: Mapping[str, str]) -> None:
        self.name = name
        self.lives: list[Life] = []
        self.ends: list[End] = []
        self.last_code: int | None = None
        self._arguments = list(arguments)
        self._env = dict(env)

    @property
    def life(self) -> Life:
        """The present one, or the one that just ended."""
        return self.lives[-1]

    @property
    def pid(self) -> int:
        return self.life.pid

    async def kill(self) -> None:
        """End the process with SIGKILL, and wait until another one was started."""
        lives = len(self.lives)
        self.life.was_killed = True
        self.life.signal(signal.SIGKILL)
        while len(self.lives) == lives:
            await asyncio.sleep(LOOK_SECONDS)

    @contextlib.contextmanager
    def frozen(self) -> Iterator[None]:
        """Stop the process with SIGSTOP for as long as the block."""
        life = self.life
        life.signal(signal.SIGSTOP)
        try:
            yield
        finally:
            life.signal(signal.SIGCONT)

    @contextlib.asynccontextmanager
    async def kept_alive(self) -> AsyncIterator[None]:
        """Start it, and start it again whenever it ends; at the end of the block stop it with SIGTERM."""
        self._start()
        keeping = asyncio.create_task(self._keep_alive(), name=self.name)
        try:
            yield
        finally:
            keeping.cancel()
            await asyncio.wait([keeping])
            await self._stop()

    def _start(self) -> None:
        self.lives.append(Life(self._arguments, self._env))

    async def _keep_alive(self) -> None:
        while True:
            code = self.life.process.poll()
            if code is None:
                await asyncio.sleep(LOOK_SECONDS)
                continue
            self.ends.append(End(self.pid, code, self.life.was_killed))
            await asyncio.sleep(RESTART_SECONDS)
            self._start()

    async def _stop(self) -> None:
        try:
            self.life.signal(signal.SIGTERM)
            self.last_code = await self.life.exit_code()
        finally:
            for life in self.lives:
                life.kill()
