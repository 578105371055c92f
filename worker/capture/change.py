"""Carrying a change out: one transaction under a short lock timeout, tried again while others work."""

import asyncio
import contextlib
import random
import time
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass

from sqlalchemy import text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from shared.capture import TRIGGERS, Capture, read_capture
from shared.migration_state import read_revision
from shared.place import PLACE, Place
from shared.postgres.advice import LACKS_TABLES
from shared.postgres.database import create_engine
from shared.postgres.faults import INSUFFICIENT_PRIVILEGE, sqlstate
from shared.revision import REVISION
from shared.settings import CommandSettings
from worker.capture import statements
from worker.capture.definition import digest
from worker.command_line.run import CommandError

IN_USE = {"55P03", "40P01"}  # a lock that was not to be had, a deadlock
PATIENCE_SECONDS = 120.0
STATEMENT_TIMEOUT_SECONDS = 10
REST_SECONDS = (0.1, 0.5)
NOT_THE_OWNER = (
    "This role may not do that. Run it as the owner of `collections` and of our tables, as you run"
    " `alembic upgrade head`. Nothing was changed."
)
HIDDEN = (
    "Row-level security hides rows of `collections` or `outbox_events` from this role, so the capture would"
    " miss them. Run it as a role with BYPASSRLS. Nothing was changed."
)

# What the function does as its owner, who is the role that installs it. Catalogs only.
MAY = text("""
    SELECT
        has_table_privilege('collections', 'SELECT')
        AND has_table_privilege('outbox_events', 'SELECT')
        AND has_table_privilege('outbox_events', 'INSERT')
        AND has_table_privilege('capture_settings', 'SELECT')
        AND has_table_privilege('captured_writes', 'INSERT') AS may_capture,
        row_security_active('collections') OR row_security_active('outbox_events') AS is_hidden
""")
# By the session's search path, as every statement of ours finds them.
# Served by pg_trigger_tgrelid_tgname_index. Disabled ones, too: they bear the name.
IN_THE_WAY = text("""
    SELECT tgname::text FROM pg_trigger
    WHERE tgrelid = to_regclass('collections') AND tgname = ANY(:names)
    ORDER BY tgname
""")


@dataclass(frozen=True, slots=True)
class Planned:
    """What is there, and the statements that change it; none where it is as was asked for."""

    before: Capture
    statements: Sequence[str]


@contextlib.asynccontextmanager
async def engine_of(settings: CommandSettings) -> AsyncIterator[AsyncEngine]:
    """Lend an engine with one connection."""
    engine = create_engine(
        settings,
        application_name="collection-sync capture",
        pool_size=1,
        statement_timeout_seconds=STATEMENT_TIMEOUT_SECONDS,
        checks_sequences=False,
    )
    try:
        yield engine
    finally:
        await engine.dispose()


async def place_of(connection: AsyncConnection) -> Place:
    """Return the schemas of the tables.

    Raises:
        CommandError: one of them was not found, or the schema is of an older release.

    """
    revision = await read_revision(connection)
    found = (await connection.execute(text(PLACE))).one()
    if revision is None or revision < REVISION or None in found:
        raise CommandError(LACKS_TABLES)
    return Place(*found)


async def plan(connection: AsyncConnection, mode: str | None) -> Planned:
    """Return what brings the capture to this mode, from whatever is there; None: what removes it."""
    place = await place_of(connection)
    before = await read_capture(connection)
    there = (await connection.execute(IN_THE_WAY, {"names": list(TRIGGERS)})).scalars().all()
    if mode is None:
        return Planned(before, statements.remove(place, there) if before.mode or there else [])
    if before.mode is None or before.missing or before.definition != digest(place):
        return Planned(before, statements.install(place, mode, there))
    return Planned(before, [] if before.mode == mode else statements.switch(place, mode))


async def change(
    engine: AsyncEngine, mode: str | None, *, interrupted: asyncio.Event, watch: Callable[[int], None]
) -> Planned:
    """Bring the capture to this mode, or remove it, in one transaction; all of it or nothing.

    Each attempt waits for each lock a twentieth of a second at most, and so do those that queue behind it.

    Args:
        engine: lends one connection.
        mode: count, append or refuse; None removes it.
        interrupted: set it to give up after the attempt in hand.
        watch: called after an attempt that did not get its locks, with how many there were.

    Raises:
        CommandError: nothing was changed, and why.

    """
    until, attempts = time.monotonic() + PATIENCE_SECONDS, 0
    while not interrupted.is_set():
        try:
            return await _attempt(engine, mode)
        except DBAPIError as error:
            if sqlstate(error) not in IN_USE:
                raise
        attempts += 1
        watch(attempts)
        if time.monotonic() >= until:
            break
        await asyncio.sleep(random.uniform(*REST_SECONDS))  # noqa: S311 - not a secret
    msg = f"`collections` was in use at each of {attempts} attempts. Nothing was changed. Try again later."
    raise CommandError(msg)


async def _attempt(engine: AsyncEngine, mode: str | None) -> Planned:
    async with engine.begin() as connection:
        await connection.execute(text(f"SET LOCAL lock_timeout = '{statements.LOCK_TIMEOUT}'"))
        await connection.execute(text(statements.ALONE))
        planned = await plan(connection, mode)
        await _carry_out(connection, planned.statements)
        if planned.statements and mode is not None:
            found = (await connection.execute(MAY)).one()
            if not found.may_capture:
                raise CommandError(NOT_THE_OWNER)
            if found.is_hidden:
                raise CommandError(HIDDEN)
        return planned


async def _carry_out(connection: AsyncConnection, planned: Sequence[str]) -> None:
    try:
        for statement in planned:
            await connection.exec_driver_sql(statement)
    except DBAPIError as error:
        if sqlstate(error) == INSUFFICIENT_PRIVILEGE:
            raise CommandError(NOT_THE_OWNER) from error
        raise
