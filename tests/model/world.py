"""The real system for a synchronous machine: one database, the product's own functions, one event loop."""

import asyncio
import contextlib
import itertools
import logging
from collections.abc import Awaitable, Iterator, Sequence
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import TypeVar

import asyncpg
import pytest
import structlog
from pydantic import SecretStr
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from api.context import CollectionSync
from api.gate.admission import Bulkheads
from api.shadow.sampler import Shadow
from api.write_statement import Write, Written, carry_out
from shared.events import EventType, Source
from shared.outbox import append_states
from shared.postgres.database import create_engine
from shared.postgres.faults import is_transient
from shared.redis.client import open_redis
from shared.redis.doorbell import Doorbell
from shared.settings import Settings
from shared.status.looked import Looks
from tests.doorbell.place import nowhere
from tests.draining import ALL_LANES, run_once
from tests.legacy_rows import seed
from tests.model.model import Actual, Guard, Legacy, Settled, State, TargetRow
from tests.model.stepping import connection_of, open_turnstile, stepped_engine
from tests.processes import HANG_SECONDS
from worker.relay.claim import BULK_LANES, LIVE_LANE, Lanes

Result = TypeVar("Result")

RELAYS = 3

CLEAR = """
    DELETE FROM outbox_events; DELETE FROM outbox_dead_letters; DELETE FROM applied_versions;
    DELETE FROM audit_findings; DELETE FROM audit_runs; DELETE FROM backfill_runs; DELETE FROM activity_logs;
    DELETE FROM project_collections; DELETE FROM collections; DELETE FROM refused_texts;
"""
CREATE_REFUSAL = """
    CREATE TABLE refused_texts (content text);
    CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$
    BEGIN
        IF EXISTS (SELECT FROM refused_texts WHERE content = NEW.research_context) THEN
            RAISE EXCEPTION 'refused';
        END IF;
        RETURN NEW;
    END $$;
    CREATE TRIGGER refuse BEFORE INSERT OR UPDATE ON project_collections
        FOR EACH ROW EXECUTE FUNCTION refuse()
"""
READ_TARGET = """
    SELECT collection_id, project_id, research_context, created_at, updated_at,
        concat_ws(' ', tags, linked_project_question_ids, linked_project_hypothesis_ids) AS extras
    FROM project_collections
"""
READ_GUARDS = "SELECT collection_id, version, project_id, is_deleted FROM applied_versions"
READ_PENDING = "SELECT id FROM outbox_events"
READ_LETTERS = "SELECT id, state FROM outbox_dead_letters"
READ_LEGACY = """
    SELECT project_id, is_active IS TRUE AS is_active, description, created_at, updated_at
    FROM collections WHERE collection_id = $1
"""
TERMINATE = "SELECT pg_terminate_backend($1, 60000)"

CRASHES = ("no answer", "killed", "cancelled", "answer lost")


class CrashError(TimeoutError):
    """What a relay meets at the statement at which it is to crash: a server that does not answer in time."""


@dataclass
class Record:
    """The collection and id of each event that the product's own functions append, and the ids it draws."""

    appended: list[tuple[str, int]] = field(default_factory=list)
    drawn: int = 0

    def clear(self) -> None:
        self.appended.clear()
        self.drawn = 0

    def draw(self) -> str:
        """Return what stands in for a UUID: the same in every run of the same rules."""
        self.drawn += 1
        return f"id-{self.drawn}"


@dataclass
class World:
    """The database, and everything that acts on it."""

    runner: asyncio.Runner
    sql: asyncpg.Connection
    holder: asyncpg.Connection
    engine: AsyncEngine
    relays: list[AsyncEngine]
    sync: CollectionSync
    record: Record

    def run(self, work: Awaitable[Result]) -> Result:
        async def bounded() -> Result:
            async with asyncio.timeout(HANG_SECONDS):
                return await work

        return self.runner.run(bounded())

    def clear(self) -> None:
        self.run(self.sql.execute(CLEAR))
        self.record.clear()

    async def settle_down(self) -> None:
        """Leave no transaction open, whatever went wrong."""
        await self.holder.reset()
        await self.engine.dispose()

    def execute(self, statement: str, *values: object) -> str:
        """Run SQL by hand."""
        status: str = self.run(self.sql.execute(statement, *values))
        return status

    def legacy(self, collection_id: str, connection: asyncpg.Connection | None = None) -> Legacy | None:
        """Return the collection's row as it is, or as it is in a transaction under way."""
        row = self.run((connection or self.sql).fetchrow(READ_LEGACY, collection_id))
        return None if row is None else Legacy(row[0], row[1], State(*row[2:]))

    def actual(self) -> Actual:
        """Return what the database holds; nobody else is at work."""
        return self.run(self._actual())

    async def _actual(self) -> Actual:
        target = await self.sql.fetch(READ_TARGET)
        guards = await self.sql.fetch(READ_GUARDS)
        pending = await self.sql.fetch(READ_PENDING)
        letters = await self.sql.fetch(READ_LETTERS)
        return Actual(
            {(row[0], row[1]): TargetRow(State(*row[2:5]), row[5]) for row in target},
            {row[0]: Guard(*row[1:]) for row in guards},
            {row[0] for row in pending},
            {row[0]: row[1] for row in letters},
        )

    def taken(self) -> list[tuple[str, int]]:
        """Return what was appended since the last call."""
        appended, self.record.appended = self.record.appended, []
        return appended

    # -- relays --------------------------------------------------------------------------------------------

    async def drained(self, sizes: Sequence[int], *, by_lane: bool = False) -> Settled:
        """Let a relay for each batch size work until it finds nothing more to claim."""
        lanes = itertools.cycle([LIVE_LANE, BULK_LANES] if by_lane and len(sizes) > 1 else [ALL_LANES])
        settled = Settled()
        await asyncio.gather(
            *(
                self._relay(engine, size, of, settled)
                for engine, size, of in zip(self.relays, sizes, lanes, strict=False)
            )
        )
        return settled

    async def _relay(self, engine: AsyncEngine, size: int, lanes: Lanes, settled: Settled) -> None:
        while (batch := await run_once(engine, size, lanes)).events:
            settled.batches.append({i: settlement.outcome for i, settlement in batch.settlements.items()})

    async def crashed(self, sizes: Sequence[int], how: str, statement: int) -> Settled:
        """Let the first relay crash at a statement of its next batch, while the others drain on."""
        settled = Settled()
        first, *others = self.relays
        await self._trap(first, how, statement)
        await asyncio.gather(
            self._crashing(first, sizes[0], settled),
            *(
                self._relay(engine, size, ALL_LANES, settled)
                for engine, size in zip(others, sizes[1:], strict=False)
            ),
        )
        return settled

    async def _crashing(self, engine: AsyncEngine, size: int, settled: Settled) -> None:
        try:
            batch = await run_once(engine, size)
        except asyncio.CancelledError:
            return
        except Exception as error:
            if not isinstance(error, asyncpg.PostgresError) and not is_transient(error):
                raise
            return
        finally:
            await self._untrap(engine)
        settled.batches.append({i: settlement.outcome for i, settlement in batch.settlements.items()})

    async def _trap(self, engine: AsyncEngine, how: str, statement: int) -> None:
        connection = await connection_of(engine)
        numbers = itertools.count(1)

        async def crash(_step: str) -> None:
            if next(numbers) != statement:
                return
            if how == "killed":
                await self.sql.fetchval(TERMINATE, connection.get_server_pid())
            elif how == "cancelled":
                raise asyncio.CancelledError
            else:
                raise CrashError

        if how == "answer lost":
            connection.after = crash
        else:
            connection.before = crash

    async def _untrap(self, engine: AsyncEngine) -> None:
        """Forget the connection: it may be broken, and it has the trap."""
        connection = await connection_of(engine)
        connection.before = connection.after = open_turnstile


@contextlib.contextmanager
def recorded(record: Record) -> Iterator[None]:
    """Note what API, backfill and audit append; let the API draw ids that repeat."""

    async def noting_write(connection: asyncpg.Connection, wanted: Write) -> Written:
        row = await carry_out(connection, wanted)
        record.appended.append((wanted.collection_id, row["event_id"]))
        return row

    async def noting_states(
        connection: AsyncConnection, ids: Sequence[str], event_type: EventType, source: Source
    ) -> dict[str, int]:
        events = await append_states(connection, ids, event_type, source)
        record.appended.extend(events.items())
        return events

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("api.collections.carry_out", noting_write)
        for module in ("collections", "write_statement"):
            patch.setattr(f"api.{module}.uuid", SimpleNamespace(uuid4=record.draw))
        patch.setattr("shared.dead_letters.append_states", noting_states)
        patch.setattr("worker.audit.repair.append_states", noting_states)
        patch.setattr("worker.backfill.chunk.append_states", noting_states)
        patch.setattr("worker.settled.SHORTEST_REST_SECONDS", 0.005)
        patch.setattr("worker.audit.run.VERIFY_REST_SECONDS", 0.005)
        yield


@contextlib.contextmanager
def silence() -> Iterator[None]:
    """Write no log: nobody could read the lines of thousands of steps."""
    before = structlog.get_config()
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL))
    try:
        yield
    finally:
        structlog.configure(**before)


@contextlib.contextmanager
def opened(database_url: str) -> Iterator[World]:
    """Open the world on a migrated database, and close it."""
    record = Record()
    with asyncio.Runner() as runner, recorded(record), silence():
        stack = contextlib.AsyncExitStack()
        try:
            yield runner.run(_opened(runner, stack, database_url, record))
        finally:
            runner.run(stack.aclose())


async def _opened(
    runner: asyncio.Runner,
    stack: contextlib.AsyncExitStack,
    database_url: str,
    record: Record,
) -> World:
    settings = Settings(database_url=SecretStr(database_url), redis_url=SecretStr("redis://127.0.0.1:1"))
    engine = create_engine(
        settings, application_name="model", pool_size=10, statement_timeout_seconds=HANG_SECONDS
    )
    relays = [stepped_engine(database_url) for _ in range(RELAYS)]
    for one in (engine, *relays):
        stack.push_async_callback(one.dispose)
    redis = open_redis("redis://127.0.0.1:1")
    stack.push_async_callback(redis.aclose)
    sql, holder = [await asyncpg.connect(database_url) for _ in range(2)]
    for connection in (sql, holder):
        stack.push_async_callback(connection.close)
    await seed(sql)
    await sql.execute(CREATE_REFUSAL)
    sync = CollectionSync(
        settings, engine, redis, Doorbell(redis, nowhere()), Bulkheads(), Looks(engine), Shadow(engine, 0)
    )
    return World(runner, sql, holder, engine, relays, sync, record)
