"""Legacy rows and events for tests, written the way the API or an operator writes them."""

from typing import Any

import asyncpg
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine

from shared.events import EventType, Source
from shared.outbox import append_event

SEED = """
    INSERT INTO users (user_id, username, email, first_name, last_name, category, role, institution,
        subject_area, how_heard_about_us)
    VALUES ('owner', 'owner', 'owner@lab.example', '', '', '', '', '', '', '');
    INSERT INTO projects (project_id, project_name, owner_user_id)
    VALUES ('p1', 'One', 'owner'), ('p2', 'Two', 'owner'), ('p3', 'Three', 'owner');
"""

SET_COLLECTION = text("""
    INSERT INTO collections (collection_id, project_id, collection_name, description, created_by, is_active)
    VALUES (:collection_id, :project_id, 'name', :description, 'owner', :is_active)
    ON CONFLICT (collection_id) DO UPDATE SET
        project_id = excluded.project_id,
        description = excluded.description,
        is_active = excluded.is_active,
        updated_at = clock_timestamp()
""")


async def seed(connection: asyncpg.Connection) -> None:
    """Insert one user who owns three projects."""
    await connection.execute(SEED)


async def set_collection(
    engine: AsyncEngine,
    collection_id: str,
    description: str | None = None,
    *,
    project_id: str = "p1",
    is_active: bool = True,
    source: Source = Source.API,
) -> int:
    """Write the collection's row and its event in one transaction; return the event's id."""
    async with engine.begin() as connection:
        values = {
            "collection_id": collection_id,
            "project_id": project_id,
            "description": description,
            "is_active": is_active,
        }
        await connection.execute(SET_COLLECTION, values)
        event_type = EventType.UPDATED if is_active else EventType.DELETED
        return await append_event(connection, collection_id, event_type, source)


async def target_rows(connection: asyncpg.Connection, collection_id: str) -> list[dict[str, Any]]:
    """Return the collection's rows of `project_collections`, ordered by project."""
    rows = await connection.fetch(
        "SELECT * FROM project_collections WHERE collection_id = $1 ORDER BY project_id", collection_id
    )
    return [dict(row) for row in rows]
