"""Finding the event that ends whoever has it in hand: whoever dies of it cannot say so afterwards.

After unclean ends, events are marked in a commit of its own before they are touched. The marks of a batch
that ended in good order leave with its events; the others stay, and the next batch of events with such
marks is smaller, until the lethal one stands alone and is set aside untried.
"""

import asyncio
from collections.abc import Sequence

import asyncpg
import structlog
from sqlalchemy.ext.asyncio import AsyncEngine

from shared.database import driver_connection
from shared.faults import is_connection_lost
from worker.batch import Batch
from worker.claim import ClaimedEvent, Lanes, acknowledge, claim
from worker.dead_letters.bury import bury
from worker.outcomes import Outcome, Verdict
from worker.presence import Presence
from worker.relay import run_these

logger = structlog.get_logger(__name__)

UNCLEAN_ENDS = 2  # one may be anybody's kill -9
LOST_CONNECTIONS = 3  # in a row, in the middle of batches: perhaps it is the server that dies of an event
TOGETHER = (500, 25, 1)  # how many events at once that have no mark, one, or two; those with more are lethal

LETHAL = Verdict(
    Outcome.DEAD,
    error=f"the process or the server ended {len(TOGETHER)} times while it had this event in hand",
)

# Both served by outbox_events_pkey. The marks must outlive a crash of the server as well.
DURABLY = "SET LOCAL synchronous_commit = on"
MARK = "UPDATE outbox_events SET attempts = attempts + 1 WHERE id = ANY($1)"
UNMARK = "UPDATE outbox_events SET attempts = attempts - 1 WHERE id = ANY($1) AND attempts > 0"


class Caution:
    """Whether an event must be expected that ends this process, and how batches are settled meanwhile."""

    def __init__(self, presence: Presence) -> None:
        """Take the row of this process, which is written before its first batch."""
        self._presence = presence
        self._one_at_a_time = asyncio.Lock()  # or another lane's batch would bear marks that it did not earn
        self._assured: set[Lanes] = set()  # whose events of the beginning are all settled
        self._owed: list[int] = []  # marks to take away: their batch ended in good order
        self._lost_in_a_row = 0
        self._is_server_suspect = False

    async def is_due(self, lanes: Lanes) -> bool:
        """Say whether batches of these lanes are to be settled with caution: until none of them is left."""
        unclean_ends = await self._presence.arrive()
        doubtful = unclean_ends >= UNCLEAN_ENDS or self._is_server_suspect
        return doubtful and lanes not in self._assured

    def note_failure(self, error: Exception) -> None:
        """Take a batch's fault into account: connections that are lost over and over give cause to doubt."""
        self._lost_in_a_row = self._lost_in_a_row + 1 if is_connection_lost(error) else 0
        if self._lost_in_a_row >= LOST_CONNECTIONS:
            self._is_server_suspect = True
            self._assured.clear()

    def note_success(self) -> None:
        """Take a batch into account that ended well: what was lost before was not lost in a row."""
        self._lost_in_a_row = 0

    async def run_once(self, engine: AsyncEngine, lanes: Lanes) -> Batch:
        """Settle one batch as `relay.run_once` does, its events marked before; full unless there was none.

        Raises:
            what `relay.run_once` raises, and as that: nothing but marks was changed.

        """
        async with self._one_at_a_time:
            await self._pay(engine)
            marked, lethal = await self._mark(engine, lanes)
            if not marked:
                if not lethal.events:
                    self._assured.add(lanes)
                return lethal
            return await self._settle(engine, marked)

    async def _mark(self, engine: AsyncEngine, lanes: Lanes) -> tuple[list[int], Batch]:
        """Mark the events of the next batch, or else set those aside that were marked once too often."""
        async with driver_connection(engine) as connection, connection.transaction():
            await connection.execute(DURABLY)
            events = await claim(connection, TOGETHER[0], lanes)
            if lethal := [event for event in events if event.attempts >= len(TOGETHER)]:
                return [], await set_aside(connection, lethal)
            ids = [event.id for event in taken_together(events)]
            await connection.execute(MARK, ids)
        return ids, Batch()

    async def _settle(self, engine: AsyncEngine, marked: list[int]) -> Batch:
        try:
            batch = await run_these(engine, marked)
        except Exception as error:
            if not is_connection_lost(error):
                self._owed = marked
            raise
        settled = {event.id for event in batch.final}
        self._owed = [event_id for event_id in marked if event_id not in settled]
        return batch

    async def _pay(self, engine: AsyncEngine) -> None:
        if self._owed:
            async with driver_connection(engine) as connection:
                await connection.execute(UNMARK, self._owed)
            self._owed = []


def taken_together(events: Sequence[ClaimedEvent]) -> list[ClaimedEvent]:
    """Choose of the claimed events those that were tried as often as the first, the fewer the more often."""
    if not events:
        return []
    attempts = events[0].attempts
    return [event for event in events if event.attempts == attempts][: TOGETHER[attempts]]


async def set_aside(connection: asyncpg.Connection, lethal: Sequence[ClaimedEvent]) -> Batch:
    """Bury these events untried, in the transaction that claimed them."""
    verdicts = {event.id: LETHAL for event in lethal}
    await bury(connection, verdicts)
    await acknowledge(connection, lethal)
    return Batch(list(lethal), verdicts, is_full=True)
