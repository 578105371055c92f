"""Everything that the suite starts: servers, the ways to them, two APIs, two workers."""

import asyncio
import contextlib
import time
from collections import deque
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType

import asyncpg
import httpx
from sqlalchemy.engine import make_url

from deploy.local.postgres import Postgres
from deploy.local.service import LOOPBACK, free_port
from deploy.local.valkey import Valkey
from tests.chaos.movable_clock import MovableClock
from tests.chaos.network import Channel
from tests.chaos.supervision import Supervised
from tests.conftest import migrate
from tests.legacy_rows import seed
from tests.processes import HANG_SECONDS, environment
from tests.security.as_role import make_logins

QUIET_COLLECTIONS = 40
LAG_LOOK_SECONDS = 0.1
LAG_BOUND_SECONDS = 1.0
LAG_LOOKS = 3  # in a row

# What happens to the outbox is remembered by the transaction that appends, so that each activity can be
# held against its event. Quiet collections are known to the system, and nobody writes to them.
PREPARE = """
    CREATE TABLE remembered (
        id bigint PRIMARY KEY, collection_id text NOT NULL, event_type text NOT NULL
    );
    CREATE FUNCTION remember() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER AS $$
    BEGIN
        INSERT INTO remembered VALUES (NEW.id, NEW.aggregate_id, NEW.event_type) ON CONFLICT DO NOTHING;
        RETURN NULL;
    END $$;
    INSERT INTO collections (collection_id, project_id, collection_name, created_by, is_active)
    SELECT 'quiet-' || number, 'p2', 'quiet', 'owner', true FROM generate_series(1, {quiet}) AS number;
    INSERT INTO outbox_events (aggregate_id, event_type, source, payload)
    SELECT collection_id, 'collection.created', 'backfill', jsonb_build_object(
        'project_id', project_id,
        'research_context', description,
        'created_at', created_at,
        'updated_at', updated_at
    )
    FROM collections;
    CREATE TRIGGER remember AFTER INSERT ON outbox_events FOR EACH ROW
        WHEN (NEW.source = 'api') EXECUTE FUNCTION remember();
"""

LAG = "SELECT coalesce(extract(epoch FROM clock_timestamp() - min(created_at)), 0)::float8 FROM outbox_events"

API = ("-m", "uvicorn", "--no-access-log")
WORKER = ("-m", "worker")


class Lag:
    """The age of the oldest pending event, looked at again and again; time is monotonic."""

    def __init__(self, postgres: Postgres) -> None:
        self._postgres = postgres
        self._looks: deque[tuple[float, float]] = deque(maxlen=600)

    async def watch(self) -> None:
        """Look until cancelled, whatever happens to PostgreSQL."""
        while True:
            with contextlib.suppress(Exception):  # asyncpg has many for a server that goes away
                async with connected(self._postgres) as sql:
                    while True:
                        self._looks.append((time.monotonic(), await sql.fetchval(LAG, timeout=5)))
                        await asyncio.sleep(LAG_LOOK_SECONDS)
            await asyncio.sleep(LAG_LOOK_SECONDS)

    async def small_again(self, since: float) -> float:
        """Wait until the lag is small and stays so; return for how long after `since` it was not."""
        while True:
            row = 0
            looks = [look for look in self._looks if look[0] >= since]
            while row < len(looks) and looks[-1 - row][1] < LAG_BOUND_SECONDS:
                row += 1
            if row >= LAG_LOOKS:
                return 0.0 if row == len(looks) else looks[-row][0] - since
            await asyncio.sleep(LAG_LOOK_SECONDS / 2)


@dataclass
class System:
    """What runs, and what was done to it that the verdict has to know."""

    directory: Path
    postgres: Postgres
    valkey: Valkey
    channels: Mapping[str, Channel]
    apis: Sequence[Supervised]
    workers: Sequence[Supervised]
    clocks: Mapping[str, MovableClock]
    urls: Sequence[str]
    lag: Lag
    logins: Mapping[str, str]  # the database's URL for each role
    planted: dict[int, str] = field(default_factory=dict)  # an event's id and what must become of it
    crashes: list[float] = field(default_factory=list)  # of PostgreSQL; monotonic

    @property
    def processes(self) -> list[Supervised]:
        return [*self.apis, *self.workers]

    def log_file(self, process: Supervised) -> Path:
        return self.directory / f"{process.name}.jsonl"


@contextlib.asynccontextmanager
async def connected(postgres: Postgres) -> AsyncIterator[asyncpg.Connection]:
    """Open a session of our own, past all channels."""
    sql = await asyncpg.connect(
        postgres.url, timeout=HANG_SECONDS, server_settings={"application_name": "chaos"}, ssl="disable"
    )
    try:
        yield sql
    finally:
        with contextlib.suppress(OSError, TimeoutError, asyncpg.PostgresError, asyncpg.InterfaceError):
            await sql.close(timeout=1)


def via(url: str, channel: Channel) -> str:
    """Return the server's address with the channel's port."""
    return make_url(url).set(port=channel.port).render_as_string(hide_password=False)


@contextlib.contextmanager
def servers(directory: Path) -> Iterator[tuple[Postgres, Valkey]]:
    """Start PostgreSQL, migrated and prepared, and Valkey. A crash of a process needs no fsync."""
    settings = {"fsync": "off", "max_connections": "200"}
    with (
        Postgres(directory / "postgres", settings=settings) as postgres,
        Valkey(directory / "valkey") as valkey,
    ):
        migrate(postgres.url)
        yield postgres, valkey


async def prepare(postgres: Postgres) -> dict[str, str]:
    """Make what users and processes find; return the database's URL for each role of `deploy/roles.sql`."""
    async with connected(postgres) as sql:
        await seed(sql)
        await sql.execute(PREPARE.format(quiet=QUIET_COLLECTIONS))
        return await make_logins(sql, postgres.url)


@contextlib.asynccontextmanager
async def running_system(
    directory: Path,
    postgres: Postgres,
    valkey: Valkey,
    instead: Mapping[str, Sequence[str]] = MappingProxyType({}),
) -> AsyncIterator[System]:
    """Start the product on these servers, two processes of each kind, and wait until it works.

    Args:
        directory: for log files and clocks.
        postgres: runs, and is migrated.
        valkey: runs.
        instead: other words than `-m uvicorn` or `-m worker` to start an `api` or a `worker` with, which then
            may do whatever it likes in the database.

    """
    logins = await prepare(postgres)
    async with contextlib.AsyncExitStack() as stack:
        channels = {
            name: await stack.enter_async_context(Channel(server).listening())
            for name, server in {
                "api-postgres": postgres,
                "worker-postgres": postgres,
                "worker-redis": valkey,
            }.items()
        }
        ports = [free_port(), free_port()]
        clocks = {name: MovableClock(directory / f"{name}.clock") for name in ("api-2", "worker-2")}
        words = {"api": API, "worker": WORKER, **instead}

        def supervised(kind: str, number: int, *more: str) -> Supervised:
            name = f"{kind}-{number}"
            start = list(words[kind])
            if name in clocks:
                start = ["-m", "tests.chaos.movable_clock", str(clocks[name].file), *start[1:]]
            redis_url = via(valkey.url, channels["worker-redis"]) if kind == "worker" else valkey.url
            env = environment(
                via(postgres.url if kind in instead else logins[kind], channels[f"{kind}-postgres"]),
                redis_url,
                LOG_FILE=str(directory / f"{name}.jsonl"),
            )
            return Supervised(name, [*start, *more], env)

        apis = [supervised("api", n, "--port", str(port), "api.main:app") for n, port in enumerate(ports, 1)]
        workers = [supervised("worker", n) for n in (1, 2)]
        for process in (*workers, *apis):
            await stack.enter_async_context(process.kept_alive())
        lag = Lag(postgres)
        watching = asyncio.create_task(lag.watch(), name="lag")
        stack.push_async_callback(ended, watching)
        urls = [f"http://{LOOPBACK}:{port}" for port in ports]
        for worker in workers:
            await worker.life.wait_for("worker_started")
        for url in urls:
            await ready(url)
        yield System(directory, postgres, valkey, channels, apis, workers, clocks, urls, lag, logins)


async def ended(task: asyncio.Task[None]) -> None:
    """Cancel a task and wait for its end."""
    task.cancel()
    await asyncio.wait([task])


async def ready(url: str) -> None:
    """Wait until this API serves."""
    async with httpx.AsyncClient() as client, asyncio.timeout(HANG_SECONDS):
        while True:
            with contextlib.suppress(httpx.TransportError):
                if (await client.get(f"{url}/readyz")).is_success:
                    return
            await asyncio.sleep(0.05)
