"""A system's turn: a fresh database, its processes on it, and whether the target is right in the end."""

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

import asyncpg

from benchmarks.bench import Bench, require
from benchmarks.peers.environments import pins
from benchmarks.peers.roles import Place, Role, Workers, own_workers, peer_workers, role
from benchmarks.peers.systems.changes import PROJECT
from shared.redis.client import open_redis

OWN_MODULE = "collection_sync"

PREPARE = (
    """
    INSERT INTO users (user_id, username, email, first_name, last_name, category, role, institution,
        subject_area, how_heard_about_us)
    VALUES ($1, $1, $1, '', '', '', '', '', '', '')
    """,
    "INSERT INTO projects (project_id, project_name, owner_user_id) VALUES ($1, '', $1)",
)

WRONG = """
    SELECT count(*)
    FROM (SELECT * FROM collections WHERE is_active) AS legacy
    FULL JOIN project_collections AS target USING (collection_id)
    WHERE (legacy.description, legacy.created_at, legacy.updated_at)
        IS DISTINCT FROM (target.research_context, target.created_at, target.updated_at)
        OR legacy.project_id IS DISTINCT FROM target.project_id
"""


@dataclass(frozen=True)
class System:
    """A system, the module of `benchmarks.peers.systems` that uses it, and how much it can be given.

    Attributes:
        environment: the name of its requirements; None: it is no peer, and runs in ours.
        speed: about the events a second that one worker drains; it decides how long its backlog is.

    """

    name: str
    module: str
    environment: str | None
    speed: int

    def describe(self, settings: Mapping[str, object]) -> str:
        shown = ", ".join(f"{name} {value}" for name, value in settings.items()) or "its defaults"
        return shown if self.environment is None else f"{pins(self.environment)}: {shown}"


@dataclass(frozen=True)
class Turn:
    """One system's turn: a fresh database, and its processes."""

    bench: Bench
    system: System
    python: Path
    place: Place

    @asynccontextmanager
    async def writer(self) -> AsyncIterator[Role]:
        async with role(self.place, self.python, self.system.module, "write") as writer:
            settings = (await writer.ask(do="describe"))["settings"]
            self.bench.facts[self.system.name] = self.system.describe(settings)
            yield writer

    @asynccontextmanager
    async def workers(self, count: int) -> AsyncIterator[Workers]:
        if self.system.module == OWN_MODULE:
            started = own_workers(self.place, count)
        else:
            started = peer_workers(self.place, self.python, self.system.module, count)
        async with started as workers:
            yield workers

    async def wrong(self) -> int:
        """Count the target's rows that are not as the legacy rows say.

        Raises:
            LocalError: there are some, and it is ours.

        """
        connection = await asyncpg.connect(self.place.url)
        wrong: int = await connection.fetchval(WRONG)
        await connection.close()
        require(
            wrong == 0 or self.system.module != OWN_MODULE, f"{wrong} rows are not what the legacy rows say"
        )
        return wrong

    async def backlog(self, *plan: object) -> dict[int, float]:
        """Write a backlog, with nobody at work, and let PostgreSQL tidy up as it would in time."""
        async with self.writer() as writer:
            written = await writer.ask(do="write", plan=plan, first=0, rate=0)
        connection = await asyncpg.connect(self.place.url)
        await connection.execute("VACUUM (ANALYZE)")
        await connection.execute("CHECKPOINT")
        await connection.close()
        return dict(written["committed"])


@asynccontextmanager
async def turn_of(bench: Bench, system: System, python: Path) -> AsyncIterator[Turn]:
    """Make a database as the migrations leave one, with a project, and an empty Valkey."""
    server = urlsplit(bench.url)
    connection = await asyncpg.connect(server._replace(path="/template1").geturl())
    await connection.execute(f"CREATE DATABASE turn TEMPLATE {server.path[1:]}")
    try:
        place = Place(server._replace(path="/turn").geturl(), bench.directory)
        await prepare(place.url)
        async with open_redis(bench.settings.redis_url.get_secret_value()) as redis:
            await redis.flushall()
        yield Turn(bench, system, python, place)
    finally:
        await connection.execute("DROP DATABASE turn WITH (FORCE)")
        await connection.close()


async def prepare(url: str) -> None:
    connection = await asyncpg.connect(url)
    for statement in PREPARE:
        await connection.execute(statement, PROJECT)
    await connection.close()
