"""Dead letters that died alike: of the same error, for the same reason, as events of the same type.

The reason names a constraint or the line of a trigger and no value, so what one fix frees stands in one
group.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import func, select
from sqlalchemy.ext.asyncio import AsyncConnection

from shared.dead_letters import REPLAY_OF, Selection, letters

MOST_GROUPS = 100


@dataclass(frozen=True, slots=True)
class LetterGroup:
    """Letters that died alike.

    like: the id of the first of them, by which the group is named. letters: how many. died_again: of those,
    the events that had replayed another letter. oldest_at, newest_at: of their deaths.
    """

    like: int
    sqlstate: str | None
    error: str
    event_type: str
    letters: int
    died_again: int
    oldest_at: datetime
    newest_at: datetime


async def find_groups(
    connection: AsyncConnection, selection: Selection, *, most: int = MOST_GROUPS
) -> Sequence[LetterGroup]:
    """Return the groups of the letters that are meant, the largest first.

    Served by outbox_dead_letters_open for dead ones; of others the whole table is read.
    """
    alike = (letters.sqlstate, letters.error, letters.event_type)
    chosen = (
        select(letters.id, *alike, letters.died_at, REPLAY_OF.label("replay_of"))
        .where(*selection.conditions())
        .subquery()
        .c
    )
    its = [chosen[column.key] for column in alike]
    first, number = func.min(chosen.id), func.count()
    grouping = (
        select(first, *its, number, func.count(chosen.replay_of))
        .add_columns(func.min(chosen.died_at), func.max(chosen.died_at))
        .group_by(*its)
        .order_by(number.desc(), first)
    )
    return [LetterGroup(*row) for row in await connection.execute(grouping.limit(most))]
