"""A turn whose gates are looked at before it has the row."""

import pytest
from sqlalchemy.ext.asyncio import AsyncConnection

from shared.phase import turn
from shared.phase.phases import Phase
from shared.verdict.facts import Facts


def look_before_the_lock(patch: pytest.MonkeyPatch) -> None:
    """Read the facts first, wait for the row, and turn by what was read."""
    right_hold, right_look = turn.hold, turn._look  # noqa: SLF001 - a twin of the room
    seen: dict[int, Facts] = {}

    async def hold(connection: AsyncConnection, epoch: int | None = None) -> Phase:
        seen[id(connection)] = await right_look(connection)
        return await right_hold(connection, epoch)

    async def look(connection: AsyncConnection) -> Facts:
        return seen[id(connection)]

    patch.setattr(turn, "hold", hold)
    patch.setattr(turn, "_look", look)
