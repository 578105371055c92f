"""Who may: the owner of the project and its active collaborators."""

from typing import Annotated

from fastapi import Header
from sqlalchemy import exists, select
from sqlalchemy.ext.asyncio import AsyncConnection

from api.errors import AccessDeniedError
from shared.legacy_tables import project_collaborators, projects, users

Caller = Annotated[
    str,
    Header(
        alias="User-ID",
        description="Who is asking, set by the gateway. It is no proof by itself. "
        "On GET an e-mail address is resolved to the user's id.",
        examples=["11111111-1111-4111-8111-111111111111"],
    ),
]
DEFAULT_CALLER = "default_user"


def refuse_nul(identifier: str) -> None:
    """Refuse what PostgreSQL cannot even be asked about.

    Raises:
        AccessDeniedError: the identifier holds a NUL character.

    """
    if "\0" in identifier:
        raise AccessDeniedError


async def resolve_email(connection: AsyncConnection, caller: str) -> str:
    """Return the id of the user with exactly this e-mail address, or else the caller as given.

    Raises:
        AccessDeniedError: the caller holds a NUL character.

    """
    refuse_nul(caller)
    if "@" not in caller:
        return caller
    found = await connection.execute(select(users.c.user_id).where(users.c.email == caller))
    return found.scalar_one_or_none() or caller


async def require_access(connection: AsyncConnection, project_id: str, user_id: str) -> None:
    """Let the owner and the active collaborators of the project pass.

    Raises:
        AccessDeniedError: anybody else, or no such project.

    """
    refuse_nul(project_id)
    refuse_nul(user_id)
    owns = exists(projects.c.project_id).where(
        projects.c.project_id == project_id, projects.c.owner_user_id == user_id
    )
    works_on = exists(project_collaborators.c.project_id).where(
        project_collaborators.c.project_id == project_id,
        project_collaborators.c.user_id == user_id,
        project_collaborators.c.is_active,
    )
    if not (await connection.execute(select(owns | works_on))).scalar_one():
        raise AccessDeniedError
