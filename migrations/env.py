"""Alembic's environment: online only, one transaction, one migration at a time, bounded waits."""

import asyncio
import logging
import sys

from alembic import context
from alembic.util import CommandError
from sqlalchemy import Connection, text
from sqlalchemy.exc import DBAPIError

from shared.migration_state import VERSION_TABLE
from shared.postgres.database import create_engine
from shared.postgres.faults import sqlstate
from shared.process.complaint import complaint_about
from shared.process.orderly import complain
from shared.settings import DatabaseSettings, load_settings
from shared.tables import capture, operators, phase, runs  # noqa: F401 - their tables belong to the same metadata
from shared.tables.outbox import metadata

STATEMENT_TIMEOUT_SECONDS = 600
# Processes at work lock our tables in orders of their own; what is taken back then has changed nothing.
DEADLOCK, ATTEMPTS = "40P01", 5
ADVISORY_LOCK = 6_331_058_142_207_371_013  # any number that nobody else in the database uses


def is_ours(name: str | None, kind: str, _parents: object) -> bool:
    """Compare our own tables only: the legacy ones belong to the monolith."""
    return kind != "table" or name in metadata.tables


def migrate(connection: Connection) -> None:
    """Run the migrations in one transaction, after any other process that is migrating has finished."""
    context.configure(
        connection=connection,
        target_metadata=metadata,
        version_table=VERSION_TABLE,
        include_name=is_ours,
        compare_server_default=True,
    )
    with context.begin_transaction():
        connection.execute(text("SET LOCAL lock_timeout = '60s'"))
        connection.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": ADVISORY_LOCK})
        # From here on a migration that would wait behind the monolith's queries gives up instead:
        # everybody who came after it would wait as well.
        connection.execute(text("SET LOCAL lock_timeout = '5s'"))
        context.run_migrations()


async def migrate_online() -> None:
    engine = create_engine(
        load_settings(DatabaseSettings),
        application_name="collection-sync migrations",
        pool_size=1,
        statement_timeout_seconds=STATEMENT_TIMEOUT_SECONDS,
        checks_sequences=False,
    )
    for attempt in range(1, ATTEMPTS + 1):
        try:
            async with engine.begin() as connection:
                await connection.run_sync(migrate)
            break
        except DBAPIError as error:
            if sqlstate(error) != DEADLOCK or attempt == ATTEMPTS:
                raise
            complain("Others work on the same tables, and PostgreSQL took the migration back. Once more.")
    await engine.dispose()


logging.basicConfig(level=logging.WARNING, format="%(message)s")
logging.getLogger("alembic.runtime.migration").setLevel(logging.INFO)
if context.is_offline_mode():
    sys.exit("Offline SQL is not offered: the first migration looks at what the database already has.")
try:
    asyncio.run(migrate_online())
except CommandError:  # alembic has a sentence of its own
    raise
except Exception as error:  # noqa: BLE001 - its own text may quote what users wrote
    said, status = complaint_about(error)
    complain(*said.split("\n"))
    sys.exit(status)
