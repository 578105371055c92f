"""Settling a batch: one outcome for each event, and no event that can stop the others."""

from collections import defaultdict
from collections.abc import Sequence

import asyncpg

from shared.faults import FOREIGN_KEY_VIOLATION, is_row_fault, sqlstate
from worker.apply import apply
from worker.claim import ClaimedEvent
from worker.outcomes import Outcome, Verdict

ERROR_CHARACTERS = 500

APPLIED = Verdict(Outcome.APPLIED)
STALE = Verdict(Outcome.STALE)
CONFLATED = Verdict(Outcome.CONFLATED)
MALFORMED = Verdict(Outcome.DEAD, error="unknown event type, or a payload without the fields of an event")


async def settle(
    connection: asyncpg.Connection, events: Sequence[ClaimedEvent], *, isolating: bool
) -> dict[int, Verdict]:
    """Apply the newest event of each collection and return a verdict for every event, by id.

    When the newest one turns out to be poison, the one before it is applied in its place: events
    carry full state, so the collection is at worst as old as that one.

    Args:
        connection: in the transaction that claimed the events.
        events: ordered by id.
        isolating: find the events at fault, under savepoints, and set them aside. Otherwise the first
            fault is raised, and the transaction is lost.

    Raises:
        asyncpg.PostgresError: a fault that is no row's, or, when not isolating, any fault.

    """
    apply_events = _apply_isolating if isolating else _apply_together
    verdicts = {event.id: MALFORMED for event in events if not event.well_formed}
    waiting: defaultdict[str, list[ClaimedEvent]] = defaultdict(list)
    for event in events:
        if event.well_formed:
            waiting[event.collection_id].append(event)
    while waiting:
        newest = [queue.pop() for queue in waiting.values()]
        settled = await apply_events(connection, newest)
        verdicts |= settled
        for event in newest:
            if settled[event.id].outcome is not Outcome.DEAD:
                verdicts |= {older.id: CONFLATED for older in waiting.pop(event.collection_id)}
            elif not waiting[event.collection_id]:
                del waiting[event.collection_id]
    return verdicts


async def _apply_together(
    connection: asyncpg.Connection, events: Sequence[ClaimedEvent]
) -> dict[int, Verdict]:
    passed = await apply(connection, [event.id for event in events])
    return {event.id: APPLIED if event.id in passed else STALE for event in events}


async def _apply_isolating(
    connection: asyncpg.Connection, events: Sequence[ClaimedEvent]
) -> dict[int, Verdict]:
    """Apply events under a savepoint; when one is at fault, halve until it stands alone."""
    try:
        async with connection.transaction():
            return await _apply_together(connection, events)
    except asyncpg.PostgresError as error:
        if not is_row_fault(error):
            raise
        if len(events) == 1:
            return {events[0].id: _verdict_on(error)}
    middle = len(events) // 2
    left = await _apply_isolating(connection, events[:middle])
    return left | await _apply_isolating(connection, events[middle:])


def _verdict_on(error: asyncpg.PostgresError) -> Verdict:
    code = sqlstate(error)
    outcome = Outcome.OBSOLETE if code == FOREIGN_KEY_VIOLATION else Outcome.DEAD
    return Verdict(outcome, code, str(error).partition("\n")[0][:ERROR_CHARACTERS])
