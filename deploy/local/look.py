"""What the target holds of the sample, where there is no psql."""

import asyncio
import sys
from collections.abc import Sequence

from deploy.local.welcome import ROWS
from shared.postgres.database import create_engine, driver_connection
from shared.process.printable import printable
from shared.settings import DatabaseSettings, SettingsError, load_settings

LONGEST_ROW = 1_000


def rows(query: str) -> Sequence[object]:
    """Return what the query finds.

    Raises:
        SettingsError: DATABASE_URL is not set, or wrong.

    """
    return asyncio.run(_fetched(query))


async def _fetched(query: str) -> Sequence[object]:
    settings = load_settings(DatabaseSettings)
    engine = create_engine(
        settings,
        application_name="make run",
        pool_size=1,
        statement_timeout_seconds=30,
        checks_sequences=False,
        checks_writable=False,
    )
    try:
        async with driver_connection(engine) as connection:
            found: Sequence[object] = await connection.fetch(query)
    finally:
        await engine.dispose()
    return found


def show() -> None:
    """Print what the target holds of the sample; where DATABASE_URL is wrong, why, and exit 1."""
    try:
        for row in rows(ROWS):
            print(printable(str(row), LONGEST_ROW))
    except SettingsError as error:
        sys.exit(str(error))
