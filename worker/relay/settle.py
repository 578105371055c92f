"""Settling a batch: one outcome for each event, and no event that can stop the others."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace

import asyncpg

from shared.events import EventType
from shared.postgres.faults import reason, said_by, sqlstate
from worker.relay.apply import UnappliedError, apply, find_misnumbered
from worker.relay.blame import Blame, blame
from worker.relay.claim import ClaimedEvent
from worker.relay.faults import may_be_one_rows
from worker.relay.outcomes import Outcome, Settlement

# Into how many parts a batch with a fault is divided, and each part that has it again. With two, a batch
# with one fault is applied, and taken back, nearly three times over; with eight hardly more than once.
PARTS = 8

APPLIED = Settlement(Outcome.APPLIED)
STALE = Settlement(Outcome.STALE)
CONFLATED = Settlement(Outcome.CONFLATED)
OF_A_FAULT = {
    Blame.ROW: Outcome.DEAD,
    Blame.PARENT: Outcome.OBSOLETE,
    Blame.SURROUNDINGS: Outcome.POSTPONED,
    Blame.UNKNOWN: Outcome.POSTPONED,
}
MALFORMED = Settlement(Outcome.DEAD, error="unknown event type, or a payload without the fields of an event")
NOT_BORNE_OUT = Settlement(
    Outcome.OBSOLETE, error="collections says otherwise: it has another home, or is not deleted"
)
MISNUMBERED = Settlement(
    Outcome.DEAD,
    error="appended after what was applied, with a lower version: the sequence of outbox_events went back",
)
BEHIND = Settlement(Outcome.POSTPONED, error="a newer event of its collection is postponed")


def may_pass_apart(error: Exception) -> bool:
    """Return whether the other events of a batch that failed so may be settled without the one at fault."""
    return isinstance(error, UnappliedError) or may_be_one_rows(error)


async def settle(
    connection: asyncpg.Connection, events: Sequence[ClaimedEvent], *, isolating: bool
) -> dict[int, Settlement]:
    """Apply the newest event of each collection and return a settlement for each event, by id.

    When the newest one turns out to be poison, or the legacy table does not bear it out, the one before it is
    applied in its place: events carry full state, so the collection is at worst as old as that one.

    Versions decide what is newest, and are drawn in the order of commits. Where one is lower than what was
    applied although its event was appended later, that event is set aside, for an operator to see.

    Args:
        connection: in the transaction that claimed the events.
        events: ordered by id.
        isolating: find the events at fault, under savepoints, and set them aside. Otherwise the first
            fault is raised, and the transaction is lost.

    Raises:
        asyncpg.PostgresError, UnappliedError: a fault that is no row's, or none could be settled for
            faults that nothing shows to be a row's; or, when not isolating, any fault.

    """
    trial = _Trial(connection, isolating=isolating)
    waiting = [event for event in events if event.well_formed and event.is_borne_out]
    newest = {event.collection_id: event for event in waiting}  # of each collection the last one stays
    settlements = {
        event.id: _of_unbelieved(event, newest.get(event.collection_id))
        for event in events
        if not (event.well_formed and event.is_borne_out)
    }
    while waiting:
        settled = await trial.settle(list(newest.values()))
        beside = {
            event.id: _of_older(event, newest[event.collection_id], settled)
            for event in waiting
            if event.id not in settled
        }
        settlements |= settled | {event_id: one for event_id, one in beside.items() if one is not None}
        waiting = [event for event in waiting if event.id in beside and beside[event.id] is None]
        newest = {event.collection_id: event for event in waiting}
    trial.raise_unless_any_settled(settlements)
    return settlements


def _of_unbelieved(event: ClaimedEvent, newest: ClaimedEvent | None) -> Settlement:
    if not event.well_formed:
        return MALFORMED
    return NOT_BORNE_OUT if newest is None or newest.id < event.id else CONFLATED


def _of_older(
    event: ClaimedEvent, newest: ClaimedEvent, settled: Mapping[int, Settlement]
) -> Settlement | None:
    """Return what becomes of an event beside the newest of its collection; None where it takes its place."""
    match settled[newest.id].outcome:
        case Outcome.DEAD:
            return None
        case Outcome.POSTPONED:
            return BEHIND
        case _:
            return MISNUMBERED if event.appended_at > newest.appended_at else CONFLATED


class _Trial:
    """Tries the events of one batch, all together or divided until the ones at fault stand alone."""

    def __init__(self, connection: asyncpg.Connection, *, isolating: bool) -> None:
        self._connection = connection
        self._isolating = isolating
        self._faults: list[Exception] = []  # of events that failed alone for no reason of their own
        self._suspects: set[int] = set()  # of those, whose fault is unexplained
        self._went_through: set[bool] = set()  # kinds, deletions or not, of which one was applied

    async def settle(self, events: Sequence[ClaimedEvent]) -> dict[int, Settlement]:
        """Return a settlement for each of these events, at most one of each collection."""
        if not self._isolating:
            return await self._together(events)
        settlements = await self._divide(events)
        self._went_through |= {
            _deletes(event) for event in events if settlements[event.id].outcome is Outcome.APPLIED
        }
        for event in events:
            if event.id in self._suspects:
                settlements[event.id] = await self._try_again(event, settlements[event.id])
        return settlements

    def raise_unless_any_settled(self, settlements: Mapping[int, Settlement]) -> None:
        """Raise the first fault when nothing at all was settled: then it is hardly the events' own."""
        if self._faults and _all_postponed(settlements.values()):
            raise self._faults[0]

    async def _try_again(self, event: ClaimedEvent, settlement: Settlement) -> Settlement:
        """Convict an event of an unexplained fault only when it fails after another of its kind went through.

        Whatever refused it at first may have been fixed before that one went through, and not since.
        """
        if _deletes(event) not in self._went_through:
            return settlement
        self._suspects.discard(event.id)
        settlement = (await self._isolate([event]))[event.id]
        return replace(settlement, outcome=Outcome.DEAD) if event.id in self._suspects else settlement

    async def _together(self, events: Sequence[ClaimedEvent]) -> dict[int, Settlement]:
        ids = [event.id for event in events]
        passed = await apply(self._connection, ids)
        settlements = dict.fromkeys(ids, STALE) | dict.fromkeys(passed, APPLIED)
        if stale := [event_id for event_id in ids if event_id not in passed]:
            settlements |= dict.fromkeys(await find_misnumbered(self._connection, stale), MISNUMBERED)
        return settlements

    async def _divide(self, events: Sequence[ClaimedEvent]) -> dict[int, Settlement]:
        """Apply events in a few parts, each under a savepoint of its own."""
        size = -(-len(events) // PARTS)
        settlements: dict[int, Settlement] = {}
        for first in range(0, len(events), size):
            settlements |= await self._isolate(events[first : first + size])
        return settlements

    async def _isolate(self, events: Sequence[ClaimedEvent]) -> dict[int, Settlement]:
        """Apply a part; when an event of it is at fault, divide it until that one stands alone."""
        try:
            async with self._connection.transaction():
                return await self._together(events)
        except (asyncpg.PostgresError, UnappliedError) as error:
            if not may_pass_apart(error):
                raise
            if len(events) == 1:
                return {events[0].id: await self._judge(events[0], error)}
        return await self._divide(events)

    async def _judge(self, event: ClaimedEvent, error: Exception) -> Settlement:
        outcome = OF_A_FAULT[to_blame := await blame(self._connection, error)]
        if outcome is Outcome.POSTPONED:
            self._faults.append(error)
        if to_blame is Blame.UNKNOWN:
            self._suspects.add(event.id)
        return Settlement(outcome, sqlstate(error), reason(error), said_by(error))


def _deletes(event: ClaimedEvent) -> bool:
    return event.event_type == EventType.DELETED


def _all_postponed(settlements: Iterable[Settlement]) -> bool:
    return all(settlement.outcome is Outcome.POSTPONED for settlement in settlements)
