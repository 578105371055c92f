"""Who may: the owner of the project and its active collaborators."""

from typing import Annotated

from fastapi import Header
from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncConnection

from api.gate.errors import AccessDeniedError
from shared.tables.legacy import users

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


def has_access(user: str = "$2") -> str:
    """Return whether the user owns the project $1 or works on it; false where there is no such project.

    Served by projects_pkey and ix_project_collaborators_project_user.
    """
    return f"""(
    EXISTS (SELECT FROM projects WHERE project_id = $1 AND owner_user_id = {user})
    OR EXISTS (SELECT FROM project_collaborators WHERE project_id = $1 AND user_id = {user} AND is_active)
)"""  # noqa: S608 - constants


HAS_ACCESS = has_access()
# The same of the user whom $2 names, by id or e-mail address. Served by users_email_key as well.
IS_KNOWN = has_access("coalesce((SELECT user_id FROM users WHERE email = $2 AND $2 LIKE '%@%'), $2)")


def refuse_nul(*identifiers: str) -> None:
    """Refuse what PostgreSQL cannot even be asked about.

    Raises:
        AccessDeniedError: one of the identifiers holds a NUL character.

    """
    if any("\0" in identifier for identifier in identifiers):
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
        AccessDeniedError: the user is neither, or there is no such project.

    """
    refuse_nul(project_id, user_id)
    found = await connection.exec_driver_sql(f"SELECT {HAS_ACCESS}", (project_id, user_id))
    if not found.scalar_one():
        raise AccessDeniedError
