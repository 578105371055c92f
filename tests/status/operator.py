"""An operator who knows nothing, and types what `python -m worker.status` says until all is well."""

import asyncio
import contextlib
import shlex
import signal
from collections.abc import Iterator, Mapping

from pydantic import SecretStr

from shared.settings import Settings
from shared.status.look import look
from shared.status.session import engine_of
from shared.verdict.answer import Answer
from shared.verdict.commands import WATCH, WORKER
from shared.verdict.facts import Facts
from shared.verdict.rules import answer_from
from tests.forked import run
from tests.log_lines import hold_printed
from tests.processes import HANG_SECONDS, Running, running

MOST_STEPS = 20


async def facts_of(database_url: str) -> Facts:
    """Return what the command would read now, without a process for it."""
    settings = Settings(database_url=SecretStr(database_url), redis_url=SecretStr("redis://127.0.0.1:1"))
    async with engine_of(settings) as engine:
        return await look(engine)


async def seen(database_url: str) -> Answer:
    """Return what it would say."""
    return answer_from(await facts_of(database_url))


class Operator:
    """Types commands in a terminal, and keeps workers running in others."""

    def __init__(self, env: Mapping[str, str], terminals: contextlib.ExitStack) -> None:
        self.env = env
        self.typed: list[str] = []
        self.words: list[str] = []
        self.workers: list[Running] = []
        self._terminals = terminals

    async def see(self) -> Answer:
        said = await seen(self.env["DATABASE_URL"])
        if self.words[-1:] != [said.word]:
            self.words.append(said.word)
        return said

    async def until_all_is_well(self) -> list[str]:
        """Do what is said, one command after the other; return the words of the verdicts on the way."""
        self.words = []
        for _ in range(MOST_STEPS):
            said = await self.see()
            if said.is_well:
                return self.words
            assert said.next_steps, said
            for step in said.next_steps:
                await self.type(step, said.word)
        raise AssertionError((self.words, self.typed))

    async def type(self, step: str, word: str) -> None:
        self.typed.append(step)
        if step == WATCH:
            await self.until_not(word)
        elif step == WORKER:
            self.workers.append(self._terminals.enter_context(running(["-m", "worker"], self.env)))
            await self.workers[-1].wait_for("worker_started")
        else:
            done = await asyncio.to_thread(run, _words(step), self.env, timeout=HANG_SECONDS)
            hold_printed(done.stderr)
            assert done.returncode in {0, 1}, (step, done.stderr)
            assert "Traceback" not in done.stderr, (step, done.stderr)

    async def until_not(self, word: str) -> Answer:
        async with asyncio.timeout(HANG_SECONDS):
            while (said := await self.see()).word == word:
                await asyncio.sleep(0.02)
        return said

    async def until(self, word: str) -> Answer:
        async with asyncio.timeout(HANG_SECONDS):
            while (said := await self.see()).word != word:
                await asyncio.sleep(0.02)
        return said

    async def stop_workers(self, number: signal.Signals = signal.SIGTERM) -> None:
        for worker in self.workers:
            worker.signal(number)
            await worker.exit_code()
        self.workers.clear()


def _words(step: str) -> list[str]:
    program, *words = shlex.split(step)
    return words if program == "python" else ["-m", program, *words]


@contextlib.contextmanager
def operator(env: Mapping[str, str]) -> Iterator[Operator]:
    with contextlib.ExitStack() as terminals:
        yield Operator(env, terminals)
