"""Dead letters as everybody sees them: finding, replaying and discarding them.

None of this reads a payload: the API may not, and what a payload holds is the operators' to see
(`worker/dead_letters/payload.py`). PostgreSQL's own words, which may quote it, are read of one letter at a
time.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from datetime import datetime

from sqlalchemy import ColumnElement, exists, func, select, text, update
from sqlalchemy.ext.asyncio import AsyncConnection

from shared.events import EventType, Source
from shared.outbox import append_states
from shared.postgres.faults import Said
from shared.tables.legacy import collections
from shared.tables.outbox import outbox_dead_letters

AT_ONCE = 500  # letters in one transaction: their collections stay locked meanwhile
MOST_NAMED = AT_ONCE  # letters whose ids a log line holds

letters = outbox_dead_letters.c

# Of a row "letter": whether its collection has a newer open one. By version and by time, since after a
# sequence went back a higher version may be the older event's; then both stay open.
HAS_A_NEWER_ONE = """EXISTS (
            SELECT FROM outbox_dead_letters AS newer
            WHERE newer.aggregate_id = letter.aggregate_id AND newer.id > letter.id
                AND newer.closed_at IS NULL AND newer.created_at >= letter.created_at
        )"""


@dataclass(frozen=True, slots=True)
class DeadLetter:
    """A row of `outbox_dead_letters` without its payload; the columns are explained there.

    collection_id: the event's aggregate. created_at: when the event was appended. trace_id: of the request
    that appended it, 32 hexadecimal digits. replay_of: the newest letter that was replayed as this event,
    which then died again; None: the event replayed no letter, or those are removed.
    """

    id: int
    collection_id: str
    event_type: str
    source: str
    created_at: datetime
    died_at: datetime
    sqlstate: str | None
    error: str
    attempts: int
    state: str
    closed_at: datetime | None
    replayed_as: int | None
    trace_id: str | None
    replay_of: int | None


@dataclass(frozen=True, slots=True)
class Selection:
    """Which letters are meant: all that fulfil every condition that is given.

    project_id: the home project that their collections have now. since, until: of their deaths. like: a
    letter that they died alike: of the same error, for the same reason, as events of the same type.
    """

    state: str | None = "dead"
    ids: Sequence[int] | None = None
    collection_id: str | None = None
    project_id: str | None = None
    sqlstate: str | None = None
    source: str | None = None
    since: datetime | None = None
    until: datetime | None = None
    like: int | None = None

    def conditions(self) -> list[ColumnElement[bool]]:
        """Return the conditions in SQL."""
        equal = {
            letters.state: self.state,
            letters.aggregate_id: self.collection_id,
            letters.sqlstate: self.sqlstate,
            letters.source: self.source,
        }
        conditions: list[ColumnElement[bool]] = [
            column == value for column, value in equal.items() if value is not None
        ]
        if self.state == "dead":
            conditions.append(letters.closed_at.is_(None))  # what the index of open letters is made for
        if self.ids is not None:
            conditions.append(letters.id.in_(self.ids))
        if self.project_id is not None:
            of_project = collections.c.project_id == self.project_id
            of_letter = collections.c.collection_id == letters.aggregate_id
            conditions.append(exists(collections.c.collection_id).where(of_letter, of_project))
        if self.since is not None:
            conditions.append(letters.died_at >= self.since)
        if self.until is not None:
            conditions.append(letters.died_at < self.until)
        if self.like is not None:
            conditions.append(_died_like(self.like))
        return conditions


@dataclass(frozen=True, slots=True)
class Replay:
    """What a replay did: the event that took each letter's place, by letter, and the letters that stay.

    homeless: their collections do not exist, so they have no state to append. closed: they are not dead,
    or there is no such letter.
    """

    replayed: Mapping[int, int]
    homeless: Sequence[int]
    closed: Sequence[int]


def _died_like(letter_id: int) -> ColumnElement[bool]:
    """Return the condition of that letter's group. Served by outbox_dead_letters_pkey."""
    named = outbox_dead_letters.alias("named").c
    return exists(named.id).where(
        named.id == letter_id,
        named.sqlstate.is_not_distinct_from(letters.sqlstate),
        named.error == letters.error,
        named.event_type == letters.event_type,
    )


earlier = outbox_dead_letters.alias("earlier")
# Served by outbox_dead_letters_of_aggregate.
REPLAY_OF = (
    select(func.max(earlier.c.id))
    .where(earlier.c.aggregate_id == letters.aggregate_id, earlier.c.replayed_as == letters.id)
    .scalar_subquery()
)
MADE = {
    "collection_id": letters.aggregate_id,
    "trace_id": func.substr(letters.traceparent, 4, 32),
    "replay_of": REPLAY_OF,
}
COLUMNS = [
    (MADE[field.name] if field.name in MADE else letters[field.name]).label(field.name)
    for field in fields(DeadLetter)
]

# Served by outbox_dead_letters_pkey.
SAID = text("SELECT message, detail, hint FROM outbox_dead_letters WHERE id = :letter_id")

# Served by outbox_dead_letters_pkey.
CLOSE_REPLAYED = text("""
    UPDATE outbox_dead_letters AS letter
    SET state = 'replayed', closed_at = clock_timestamp(), replayed_as = event.id
    FROM unnest(CAST(:letter_ids AS bigint[]), CAST(:event_ids AS bigint[])) AS event (letter_id, id)
    WHERE letter.id = event.letter_id
""")


async def find(
    connection: AsyncConnection, selection: Selection, *, after_id: int = 0, most: int = AT_ONCE
) -> list[DeadLetter]:
    """Return a page of the letters that are meant, by id, from the first one after `after_id` on.

    Served by outbox_dead_letters_open for dead ones, by outbox_dead_letters_pkey for others.
    """
    page = select(*COLUMNS).where(letters.id > after_id, *selection.conditions()).order_by(letters.id)
    return [DeadLetter(*row) for row in await connection.execute(page.limit(most))]


async def said_of(connection: AsyncConnection, letter_id: int) -> Said:
    """Return what PostgreSQL said when the event died, in its own words; nothing of a letter that is gone."""
    said = (await connection.execute(SAID, {"letter_id": letter_id})).one_or_none()
    return Said(*(said or ()))


async def count(connection: AsyncConnection, selection: Selection) -> dict[str, int]:
    """Count the letters that are meant, by state; states that none has are left out."""
    number = func.count().label("number")
    counting = select(letters.state, number).where(*selection.conditions()).group_by(letters.state)
    return {row.state: row.number for row in await connection.execute(counting)}


async def replay(connection: AsyncConnection, ids: Sequence[int]) -> Replay:
    """Append the present state of these letters' collections, in the repair lane, and close the letters.

    What died is not brought back: it may be older than what the target shows. The collection's row is
    locked and its state appended with a new version, so nothing newer can be overwritten. Letters of one
    collection share an event. Of two callers at once one replays a letter, the other finds it closed.

    Args:
        connection: in a transaction of the caller's; its letters and collections stay locked until the end.
        ids: of letters, AT_ONCE at most.

    """
    open_letters = await _lock(connection, ids)
    collection_ids = sorted(set(open_letters.values()))
    event_ids = await append_states(connection, collection_ids, EventType.UPDATED, Source.REPAIR)
    replayed = {
        letter_id: event_ids[collection_id]
        for letter_id, collection_id in open_letters.items()
        if collection_id in event_ids
    }
    values = {"letter_ids": list(replayed), "event_ids": list(replayed.values())}
    await connection.execute(CLOSE_REPLAYED, values)
    return Replay(
        replayed,
        homeless=[letter_id for letter_id in open_letters if letter_id not in replayed],
        closed=[letter_id for letter_id in ids if letter_id not in open_letters],
    )


async def discard(connection: AsyncConnection, ids: Sequence[int]) -> list[int]:
    """Close those of these letters that are dead, for good, and return their ids. Nothing is appended."""
    discarded = await connection.execute(
        update(outbox_dead_letters)
        .where(letters.id.in_(ids), letters.closed_at.is_(None))
        .values(state="discarded", closed_at=func.clock_timestamp())
        .returning(letters.id)
    )
    return sorted(discarded.scalars())


async def _lock(connection: AsyncConnection, ids: Sequence[int]) -> dict[int, str]:
    """Lock those of these letters that are dead; return the collection of each."""
    locked = await connection.execute(
        select(letters.id, letters.aggregate_id)
        .where(letters.id.in_(ids), letters.closed_at.is_(None))
        .order_by(letters.id)
        .with_for_update()
    )
    return {letter_id: collection_id for letter_id, collection_id in locked.all()}  # noqa: C416 - rows, not tuples
