"""Draining as a duty of the process: live writes beside bulk, patient with faults, willing to stop."""

import asyncio
import contextlib
import math
import random
import time
from collections.abc import Sequence

import structlog
from sqlalchemy.ext.asyncio import AsyncEngine

from shared.postgres.advice import advice_on
from shared.postgres.faults import QUERY_CANCELED, is_transient, sqlstate
from worker.relay.batch import Batch
from worker.relay.batch_size import TAKES_TOO_LONG, BatchSize
from worker.relay.caution import Caution
from worker.relay.claim import BEGINNING, BULK_LANES, LIVE_LANE, ClaimedEvent, Lanes, Position
from worker.relay.claim_start import PLACE, ClaimStart
from worker.relay.run import BatchFailedError, run_once, run_these, set_these_aside
from worker.telemetry.reporter import BatchObserver, BatchReporter
from worker.telemetry.spans import trace_failed_batch
from worker.vitals.own_name import own_name
from worker.vitals.presence import Presence

logger = structlog.get_logger(__name__)

FIRST_RETRY_SECONDS = 0.05
LAST_RETRY_SECONDS = 2.0
LIVE_BATCH = 1_000
BULK_BATCH = 1_000
BULK_DRAINS = 2  # while one waits for PostgreSQL the other works
CONNECTIONS = 1 + BULK_DRAINS
# While users write, bulk leaves them room: one drain, of short batches, each followed by a rest.
LIVE_LATELY_SECONDS = 1.0
POLITE_BATCH = 100
REST_PER_BATCH = 2.0  # times its duration
BEHIND_SECONDS = 1.0  # for which claims begin behind events that wait, before those are tried again
BATCH_PATIENCE_SECONDS = 10.0  # for the batch in hand, when the process is to end


class Drainer:
    """Drains the live lane and the bulk lanes side by side: no user's write waits for a bulk batch.

    It works in tasks of its own, so that the caller that wakes it may end, or be cancelled, at any time. The
    caller disposes of the engine, of which it takes CONNECTIONS at most. The process's presence is recorded
    before its first batch. The observers are notified of each batch.
    """

    def __init__(
        self,
        engine: AsyncEngine,
        presence: Presence | None = None,
        observers: Sequence[BatchObserver] = (),
    ) -> None:
        caution = Caution(presence or Presence(engine, own_name()))
        self._live = LaneDrainer(engine, caution, LIVE_LANE, LIVE_BATCH, observers)
        self._bulk = [
            LaneDrainer(
                engine,
                caution,
                BULK_LANES,
                BULK_BATCH,
                observers,
                gives_way_to=self._live,
                stands_down=number > 0,
            )
            for number in range(BULK_DRAINS)
        ]

    def wake(self, reason: str) -> None:
        """Start draining everything now pending; return immediately.

        Args:
            reason: what woke the worker, for the log: `doorbell`, `sweep` or `poll`.

        """
        self.wake_live(reason)
        self.wake_bulk(reason)

    def wake_live(self, reason: str) -> None:
        """Start draining what users wrote: a ring for them need not look for bulk."""
        self._live.wake(reason)

    def wake_bulk(self, reason: str) -> None:
        """Start draining what backfills and repairs appended."""
        for drainer in self._bulk:
            drainer.wake(reason)

    async def live_settled(self) -> None:
        """Return when the drain of the live lane that is under way, if any, has ended."""
        await self._live.idle()

    async def drain(self, reason: str) -> None:
        """Wake, and wait until there is nothing left to do."""
        self.wake(reason)
        await asyncio.gather(*(drainer.idle() for drainer in (self._live, *self._bulk)))

    async def stop(self) -> None:
        """Let the batches in hand finish and begin no others; what takes too long is rolled back."""
        await asyncio.gather(*(drainer.stop() for drainer in (self._live, *self._bulk)))


class LaneDrainer:
    """Runs batches of some lanes until a claim from the beginning of the outbox gets too few for another.

    While the drainer that this one gives way to has events, it claims few at a time and rests in
    between, or, if it stands down, does nothing.
    """

    def __init__(  # noqa: PLR0913 - its two kinds differ in each
        self,
        engine: AsyncEngine,
        caution: Caution,
        lanes: Lanes,
        batch_size: int,
        observers: Sequence[BatchObserver],
        *,
        gives_way_to: "LaneDrainer | None" = None,
        stands_down: bool = False,
    ) -> None:
        self._engine = engine
        self._caution = caution
        self._lanes = lanes
        self._batch_size = BatchSize(batch_size)
        self._reporter = BatchReporter(observers)
        self._gives_way_to = gives_way_to
        self._stands_down = stands_down
        self._claim_start = ClaimStart()
        self._behind = BEGINNING  # of what was postponed since the last claim from the beginning
        self._behind_until = -math.inf  # monotonic
        self._expects_faults = False
        self._settled_at = -math.inf  # monotonic
        self._task: asyncio.Task[None] | None = None
        self._wanted = False
        self._woken = asyncio.Event()
        self._stopping = False
        self._failures = 0

    def wake(self, reason: str) -> None:
        """Start a drain, or make the one that is under way look once more before it ends."""
        self._wanted = True
        self._woken.set()
        if self._task is None or self._task.done():
            self._task = asyncio.create_task(self._drain(reason), name=f"drain {self._lanes}")

    @property
    def settled_lately(self) -> bool:
        """Whether there was an event to settle within the last second."""
        return time.monotonic() - self._settled_at < LIVE_LATELY_SECONDS

    async def idle(self) -> None:
        """Return when the drain under way, if any, has ended."""
        if self._task is not None:
            await asyncio.wait([self._task])

    async def stop(self) -> None:
        """Begin no other batch; cancel the one in hand when it does not end in BATCH_PATIENCE_SECONDS."""
        self._stopping = True
        self._woken.set()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(BATCH_PATIENCE_SECONDS):
                await self.idle()
        if self._task is not None:
            self._task.cancel()
            await self.idle()

    async def _drain(self, reason: str) -> None:
        while self._wanted and not self._stopping:
            self._wanted = False
            self._woken.clear()
            if await self._settle_one_batch(reason):
                self._wanted = True
            else:
                await self._reporter.flush()  # within the loop: meanwhile a wake-up may come
        await self._reporter.flush()

    async def _settle_one_batch(self, reason: str) -> bool:
        """Return whether there may be more. After a batch that failed, a later wake-up tries again."""
        is_polite = self._gives_way_to is not None and self._gives_way_to.settled_lately
        if is_polite and self._stands_down:
            return False
        size = min(POLITE_BATCH, self._batch_size.size) if is_polite else self._batch_size.size
        if time.monotonic() >= self._behind_until:
            self._behind = BEGINNING
        start = max(self._claim_start.choose(), self._behind)
        is_cautious = False
        try:
            is_cautious = await self._caution.is_due(self._lanes)
            batch = await self._run_once(size, start, is_cautious=is_cautious)
        except BatchFailedError as failed:
            trace_failed_batch(failed.events, failed.cause, failed.seconds)
            in_hand = [] if is_cautious else failed.events  # caution keeps account of its own
            await self._back_off(failed.cause, in_hand, failed.seconds)
            self._look_behind(in_hand, size)
            return False
        except Exception as error:  # noqa: BLE001 - the one catch-all: no fault of a batch may end the worker
            await self._back_off(error, [], 0.0)
            self._look_behind([], size)
            return False
        self._failures = 0
        self._caution.note_settled(batch)
        self._batch_size.note(batch)
        self._claim_start.note(start, batch.events, batch.claim_seconds)
        if batch.events:
            self._settled_at = time.monotonic()
            await self._reporter.report(batch, reason)
        if is_polite:
            await asyncio.sleep(batch.duration_seconds * REST_PER_BATCH)
        if self._behind != BEGINNING or len(batch.final) < len(batch.events):
            return self._look_behind(batch.events, size)
        if batch.is_full or start == BEGINNING:
            return batch.is_full
        await self._woken_or_due()
        return True

    def _look_behind(self, events: Sequence[ClaimedEvent], size: int) -> bool:
        """Return whether there may be more behind events that stay as they are; else begin anew next time.

        Of those that are to be tried fewer at a time, the first come next.
        """
        is_full = len(events) >= size and (len(events) == 1 or self._batch_size.size >= size)
        if self._behind == BEGINNING:
            self._behind_until = time.monotonic() + BEHIND_SECONDS
        self._behind = Position(*max(map(PLACE, events))) if is_full else BEGINNING
        return is_full

    async def _run_once(self, size: int, start: Position, *, is_cautious: bool) -> Batch:
        if is_cautious:
            return await self._caution.run_once(self._engine, self._lanes)
        if (slow := self._batch_size.due()) is not None:
            return await self._run_slow(slow)
        batch = await run_once(
            self._engine,
            size,
            self._lanes,
            start,
            passing_over=self._batch_size.passed_over,
            apart=self._expects_faults,
        )
        self._expects_faults = batch.had_faults
        return batch

    async def _run_slow(self, event_id: int) -> Batch:
        """Try an event again that took too long alone, or set it aside."""
        if self._batch_size.is_hopeless(event_id):
            batch = await set_these_aside(self._engine, [event_id], TAKES_TOO_LONG)
        else:
            batch = await run_these(self._engine, [event_id])
        self._batch_size.forget(event_id)
        return batch

    async def _woken_or_due(self) -> None:
        """Wait for a wake-up, or until it is time to claim from the beginning."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(self._claim_start.seconds_until_full_claim):
                await self._woken.wait()

    async def _back_off(self, error: Exception, in_hand: Sequence[ClaimedEvent], seconds: float) -> None:
        self._claim_start.forget()
        self._failures += 1
        self._caution.note_failure(error, in_hand)
        code = sqlstate(error)
        if code == QUERY_CANCELED:
            self._batch_size.note_too_long(in_hand, seconds)
        log = logger.warning if is_transient(error) else logger.error
        log(
            "batch_failed",
            transient=is_transient(error),
            error=type(error).__name__,
            sqlstate=code,
            failures=self._failures,
            **({"hint": hint} if (hint := advice_on(error)) else {}),
        )
        self._reporter.failed(error)
        ceiling = min(FIRST_RETRY_SECONDS * 2 ** min(self._failures, 10), LAST_RETRY_SECONDS)
        await asyncio.sleep(random.uniform(0, ceiling))  # noqa: S311 - jitter, not a secret
