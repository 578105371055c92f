"""Which migration the database has, and why one may be refused."""

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

VERSION_TABLE = "collection_sync_version"  # the monolith may have an alembic_version of its own

READ_REVISION = text(f"SELECT max(version_num) FROM {VERSION_TABLE}")  # noqa: S608 - a constant


class MigrationRefusedError(RuntimeError):
    """A migration would lose or break something; the message says what, and what to do."""


async def read_revision(connection: AsyncConnection) -> str | None:
    """Return the revision that the database is at, or None when it was never migrated."""
    exists = await connection.execute(text("SELECT to_regclass(:name)"), {"name": VERSION_TABLE})
    if exists.scalar_one() is None:
        return None
    return (await connection.execute(READ_REVISION)).scalar_one_or_none()
