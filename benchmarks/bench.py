"""What a case is measured on: services of its own, and how much of everything."""

import asyncio
import os
import platform
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import ExitStack, asynccontextmanager
from dataclasses import dataclass, field
from enum import IntEnum
from pathlib import Path
from types import MappingProxyType
from typing import Protocol

import asyncpg

from benchmarks.figures import Figure
from deploy.local.errors import LocalError
from deploy.local.postgres import Postgres
from deploy.local.run import migrate
from deploy.local.valkey import Valkey
from shared.settings import Settings, load_settings


class Scale(IntEnum):
    """How much is measured: `small` only shows that a case works, `full` takes an hour."""

    SMALL = 0
    NORMAL = 1
    FULL = 2


@dataclass(frozen=True)
class Bench:
    """The services that a case is measured on, migrated and empty, and how much it shall measure.

    `url` is the database's address as asyncpg takes it. Processes that a case starts find the same services
    through the environment. `say` shows what is being done, on stderr.
    """

    scale: Scale
    directory: Path
    settings: Settings
    say: Callable[[str], None]
    facts: dict[str, object] = field(default_factory=dict)

    @property
    def url(self) -> str:
        return self.settings.database_url.get_secret_value().replace("+asyncpg", "")

    def choose(self, small: int, normal: int, full: int | None = None) -> int:
        """Return the number for this scale; `full` is as `normal` where it is not given."""
        return (small, normal, normal if full is None else full)[self.scale]

    @asynccontextmanager
    async def sql(self) -> AsyncIterator[asyncpg.Connection]:
        """Connect as an observer does: planned as PostgreSQL likes to."""
        connection = await asyncpg.connect(self.url)
        try:
            yield connection
        finally:
            await connection.close()


class Case(Protocol):
    """A module of `benchmarks/cases`: its first line says what it measures."""

    __doc__: str | None

    async def measure(self, bench: Bench) -> Sequence[Figure]:
        """Take the repeats in turns; raise a LocalError when work was not done right."""


@asynccontextmanager
async def services(
    scale: Scale,
    say: Callable[[str], None],
    postgres_settings: Mapping[str, str] = MappingProxyType({}),
) -> AsyncIterator[Bench]:
    """Start PostgreSQL (fsync on) and Valkey of our own, and bring the schema up to date."""
    with ExitStack() as stack:
        directory = Path(stack.enter_context(tempfile.TemporaryDirectory(ignore_cleanup_errors=True)))
        postgres = stack.enter_context(Postgres(directory / "postgresql", settings=postgres_settings))
        valkey = stack.enter_context(Valkey(directory / "valkey"))
        os.environ |= {postgres.url_variable: postgres.url, valkey.url_variable: valkey.url}
        await migrate()
        yield Bench(scale, directory, load_settings(Settings), say)


async def environment(bench: Bench) -> dict[str, str]:
    async with bench.sql() as sql:
        shown = {
            name: await sql.fetchval(f"SHOW {name}")
            for name in ("server_version", "fsync", "shared_buffers", "synchronous_commit")
        }
    return {
        "scale": bench.scale.name.lower(),
        "python": platform.python_version(),
        "postgresql": shown.pop("server_version"),
        **shown,
        "cores": str(os.cpu_count()),
        "system": f"{platform.system()} {platform.release()} {platform.machine()}",
    }


async def timed(work: Awaitable[object]) -> float:
    clock = asyncio.get_running_loop().time
    began = clock()
    await work
    return clock() - began


def require(fact: object, what: str) -> None:
    """Make sure that figures are of work that was done right.

    Raises:
        LocalError: it was not, so the figures are worth nothing.

    """
    if not fact:
        raise LocalError(f"Not so: {what}.")
