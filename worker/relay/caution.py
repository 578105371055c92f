"""Isolate the event that crashes its worker, or the server. A crash leaves no error behind.

So after unclean ends, events are marked in a commit of its own before they are touched. The marks of a batch
that ended in good order leave with its events; the others stay, and the next batch of events with such
marks is smaller, until the lethal one stands alone. It is tried once more when nothing else was lost for a
while, and is then set aside untried.
"""

import asyncio
import math
import time
from collections import Counter
from collections.abc import Sequence
from datetime import datetime

import structlog
from sqlalchemy.ext.asyncio import AsyncEngine

from shared.postgres.database import driver_connection
from worker.relay.batch import Batch
from worker.relay.bury import set_aside
from worker.relay.claim import BEGINNING, ClaimedEvent, Lanes, claim
from worker.relay.faults import is_connection_lost
from worker.relay.outcomes import Outcome, Settlement
from worker.relay.run import BatchFailedError, run_these
from worker.vitals.presence import Presence

logger = structlog.get_logger(__name__)

UNCLEAN_ENDS = 2  # one may be an operator's kill -9
LOST_CONNECTIONS = 2  # with the same event in hand: perhaps it is the server that dies of it
TOGETHER = (500, 1, 1)  # how many events at once that have no mark, one, or two; those with more are lethal
CRASH_SHOWS_SECONDS = 1.0  # until then a server that crashed may still take connections
# Without a lost connection, before an event is tried for the last time, and before it is set aside: by then
# other workers, whose sessions were ended as well, have taken their marks away.
CALM_SECONDS = 5.0
MOST_REMEMBERED = 10_000  # events that were in hand when a connection was lost

LETHAL = Settlement(
    Outcome.DEAD,
    error=f"the process or the server ended {len(TOGETHER)} times while it had this event in hand",
)

# Served, as UNMARK is, by outbox_events_pkey. The marks must outlive a crash of the server as well.
DURABLY = "SET LOCAL synchronous_commit = on"
# When its statistics began: anew when the server starts again after a crash, and not when a session ends.
SERVER_LIFE = "SELECT stats_reset FROM pg_stat_wal"
MARK = "UPDATE outbox_events SET attempts = attempts + 1 WHERE id = ANY($1)"
# Served by outbox_events_claim_order. Asked when all that is there is in other workers' hands.
BEARS_MARKS = "SELECT EXISTS (SELECT FROM outbox_events WHERE lane BETWEEN $1 AND $2 AND attempts > 0)"
UNMARK = "UPDATE outbox_events SET attempts = attempts - 1 WHERE id = ANY($1) AND attempts > 0"


class Caution:
    """Decides whether an event that ends this process is to be expected, and settles batches meanwhile.

    `presence` is the row of this process, which is written before its first batch.
    """

    def __init__(self, presence: Presence) -> None:
        self._presence = presence
        self._one_at_a_time = asyncio.Lock()  # or another lane's batch would bear marks that it did not earn
        self._assured: set[Lanes] = set()  # whose events of the beginning are all settled
        self._owed: list[int] = []  # marks to take away: their batch ended in good order
        self._broken_off: list[int] = []  # marks of a batch whose connection was lost
        self._server_life: datetime | None = None  # when those were made
        self._lost_with: Counter[int] = Counter()  # connections, by the event that was in hand
        self._lost_at = -math.inf  # monotonic
        self._is_server_suspect = False

    async def is_due(self, lanes: Lanes) -> bool:
        """Return whether batches of these lanes are to be settled with caution, until none is left."""
        unclean_ends = await self._presence.arrive()
        doubtful = unclean_ends >= UNCLEAN_ENDS or self._is_server_suspect
        return doubtful and lanes not in self._assured

    def note_failure(self, error: Exception, in_hand: Sequence[ClaimedEvent]) -> None:
        """Count the lost connection, if that is what it was, against the events that were in hand.

        A session that an operator ends, and a server that is shut down, report it; one that crashes does not.
        """
        if not is_connection_lost(error):
            return
        self._lost_at = time.monotonic()
        if len(self._lost_with) > MOST_REMEMBERED:
            self._lost_with.clear()
        self._lost_with.update(event.id for event in in_hand)
        if any(self._lost_with[event.id] >= LOST_CONNECTIONS for event in in_hand):
            self._is_server_suspect = True
            self._assured.clear()

    def note_settled(self, batch: Batch) -> None:
        """Clear the events that the batch settled: they did no harm."""
        if self._lost_with:
            for event in batch.final:
                self._lost_with.pop(event.id, None)

    async def run_once(self, engine: AsyncEngine, lanes: Lanes) -> Batch:
        """Settle one batch as `run_once` does, its events marked before; full unless there was none.

        Raises:
            BatchFailedError, or what PostgreSQL raised while marking: nothing but marks was changed.

        """
        async with self._one_at_a_time:
            await self._pay(engine)
            marked, untried = await self._mark(engine, lanes)
            return await self._settle(engine, marked) if marked else untried

    async def _mark(self, engine: AsyncEngine, lanes: Lanes) -> tuple[list[int], Batch]:
        """Mark the events of the next batch, or else set those aside that were marked once too often."""
        async with driver_connection(engine) as connection, connection.transaction():
            await connection.execute(DURABLY)
            events = await claim(connection, TOGETHER[0], lanes, BEGINNING)
            if not events and not await connection.fetchval(BEARS_MARKS, *lanes):
                self._assured.add(lanes)
            if time.monotonic() - self._lost_at < CALM_SECONDS:
                events = [event for event in events if event.attempts < len(TOGETHER) - 1]
            if lethal := [event for event in events if event.attempts >= len(TOGETHER)]:
                return [], await set_aside(connection, lethal, LETHAL)
            ids = [event.id for event in taken_together(events)]
            await connection.execute(MARK, ids)
            self._server_life = await connection.fetchval(SERVER_LIFE)
        return ids, Batch()

    async def _settle(self, engine: AsyncEngine, marked: list[int]) -> Batch:
        try:
            batch = await run_these(engine, marked)
        except BatchFailedError as failed:
            if is_connection_lost(failed.cause):
                self._broken_off, self._lost_at = marked, time.monotonic()
            else:
                self._owed = marked
            raise
        settled = {event.id for event in batch.final}
        self._owed = [event_id for event_id in marked if event_id not in settled]
        return batch

    async def _pay(self, engine: AsyncEngine) -> None:
        """Take away undue marks: also of a batch whose session ended while the server lived on."""
        if not self._owed and not self._broken_off:
            return
        if self._broken_off:
            await asyncio.sleep(self._lost_at + CRASH_SHOWS_SECONDS - time.monotonic())
        async with driver_connection(engine) as connection:
            if self._broken_off and await connection.fetchval(SERVER_LIFE) == self._server_life:
                self._owed = self._broken_off
            self._broken_off = []
            await connection.execute(UNMARK, self._owed)
        self._owed = []


def taken_together(events: Sequence[ClaimedEvent]) -> list[ClaimedEvent]:
    """Choose of the claimed events those that were tried as often as the first, the fewer the more often."""
    if not events:
        return []
    attempts = events[0].attempts
    return [event for event in events if event.attempts == attempts][: TOGETHER[attempts]]
