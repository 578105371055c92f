"""Whether the project exists that a command was asked for."""

from sqlalchemy import exists, select
from sqlalchemy.ext.asyncio import AsyncEngine

from shared.tables.legacy import projects
from worker.command_line.run import CommandError


async def require_project(engine: AsyncEngine, project_id: str | None) -> None:
    """Refuse a project that does not exist: a mistyped one would pass for one without collections."""
    if project_id is None:
        return
    async with engine.connect() as connection:
        found = await connection.execute(
            select(exists(projects.c.project_id).where(projects.c.project_id == project_id))
        )
    if not found.scalar_one():
        raise CommandError(f"There is no project {project_id!r}.")
