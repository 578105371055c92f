"""Rows of the database that DATABASE_URL leads to, for who has no psql."""

import asyncio
from collections.abc import Sequence

from shared.postgres.database import create_engine, driver_connection
from shared.settings import DatabaseSettings, load_settings


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
