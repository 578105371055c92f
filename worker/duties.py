"""What a worker does by itself, once a second by a timer of its own, whether Redis is there or not.

It sweeps: starts a drain of what no ring announced. It shows that the process lives, in the database and
in the log, tends dead letters, tombstones and keys of creations, counts what going back would lose, names who
holds a snapshot, and drives backfills and audits that were left to workers.
"""

import asyncio
import contextlib
import itertools
import random
from collections.abc import Awaitable, Callable

import structlog
from redis.asyncio import Redis
from sqlalchemy.ext.asyncio import AsyncEngine

from shared.audit_runs import AuditOptions
from shared.postgres.advice import advice_on
from shared.postgres.faults import is_transient, sqlstate
from shared.redis.deployment import Deployment
from shared.redis.doorbell import Doorbell
from worker.audit.custody import is_due
from worker.audit.custody import take_up as take_up_audit
from worker.audit.run import audit, carry_out
from worker.backfill.custody import take_up as take_up_backfill
from worker.backfill.run import drive
from worker.capture.counting import CaptureUpkeep
from worker.dead_letters.upkeep import LetterUpkeep
from worker.drainer import Drainer
from worker.going_back import LossUpkeep
from worker.idempotency import KeyUpkeep
from worker.shadow import ShadowUpkeep
from worker.tombstones import TombstoneUpkeep
from worker.vitals.heartbeat import BEAT_SECONDS, Heart
from worker.vitals.presence import Presence
from worker.vitals.runs import RUNS_LOOK_SECONDS, RunWatch
from worker.vitals.snapshot_holders import SNAPSHOT_LOOK_SECONDS, SnapshotWatch

logger = structlog.get_logger(__name__)

CHUNK_PATIENCE_SECONDS = 10.0  # for a chunk in hand, when the process is to end
TICK_SECONDS = 1.0  # at most: workers that began in one moment do not sweep in one moment for ever
SHORTEST = 0.9  # of that
IDENTITY_SECONDS = 5
CONNECTIONS = 14  # two for each of audit and backfill, and one for each of the others


class Duties:
    """Looks for work of each kind each second; one piece of a kind at a time in this process.

    Of all workers one gets a piece: it is taken in the database. What this one leaves unfinished,
    another takes up seconds later. The engine is not the drainer's, and of it CONNECTIONS are used at
    most; the caller closes it, and the client to ring with, after `stop`. `runs` is for the metrics, where
    there are any.
    """

    def __init__(  # noqa: PLR0913 - each is a duty, or what duties need
        self,
        engine: AsyncEngine,
        redis: Redis,
        *,
        drainer: Drainer,
        deployment: Deployment,
        presence: Presence,
        heart: Heart,
        letters: LetterUpkeep,
        tombstones: TombstoneUpkeep,
        keys: KeyUpkeep,
        captured: CaptureUpkeep,
        losses: LossUpkeep,
        shadow: ShadowUpkeep,
        snapshots: SnapshotWatch,
        runs: RunWatch | None = None,
    ) -> None:
        self._engine = engine
        self._drainer = drainer
        self._deployment = deployment
        self._presence = presence
        self._heart = heart
        self._letters = letters
        self._tombstones = tombstones
        self._keys = keys
        self._captured = captured
        self._losses = losses
        self._shadow = shadow
        self._snapshots = snapshots
        self._runs = runs
        self._ticking: asyncio.Task[None] | None = None
        self._doorbell = Doorbell(redis, deployment, "bulk")
        self._ringing: asyncio.Task[None] | None = None
        self._interrupted = asyncio.Event()
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._failing: set[str] = set()

    def start(self) -> None:
        """Begin with what is done each second, or every few seconds."""
        self._ticking = asyncio.create_task(self._tick(), name="duties")

    async def _tick(self) -> None:
        for tick in itertools.count():
            self._drainer.wake("sweep")
            self.look()
            if tick % IDENTITY_SECONDS == 0 or self._deployment.known is None:
                self._begin("identity", self._learn)
            self._begin("presence", self._presence.beat)
            self._begin("dead letters", self._letters.tend)
            self._begin("tombstones", self._tombstones.tend)
            self._begin("idempotency keys", self._keys.tend)
            self._begin("captured writes", self._captured.tend)
            self._begin("losses", self._losses.tend)
            self._begin("comparisons", self._shadow.tend)
            if tick % BEAT_SECONDS == 0:
                self._begin("heartbeat", self._heart.beat)
            if tick % SNAPSHOT_LOOK_SECONDS == 0:
                self._begin("snapshots", self._snapshots.look)
            if self._runs is not None and tick % RUNS_LOOK_SECONDS == 0:
                self._begin("metrics", self._runs.look)
            await self._rest()

    async def _rest(self) -> None:
        await asyncio.sleep(TICK_SECONDS * random.uniform(SHORTEST, 1))  # noqa: S311 - not a secret

    def look(self) -> None:
        """Take up what waits for a worker; returns at once."""
        if self._ringing is None:
            self._ringing = asyncio.create_task(self._doorbell.run(), name="doorbell")
        self._begin("backfill", self._tend_backfill)
        self._begin("audit", self._tend_audit)

    async def stop(self) -> None:
        """Let the chunks in hand finish; what takes too long is rolled back. Last, the process leaves."""
        self._interrupted.set()
        if self._ticking is not None:
            self._ticking.cancel()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(CHUNK_PATIENCE_SECONDS):
                await self._ended()
        for task in self._all():
            task.cancel()
        if self._all():
            await asyncio.wait(self._all())
        await self._report_faults("presence", self._presence.leave)

    def _all(self) -> list[asyncio.Task[None]]:
        return [*self._tasks.values(), *(task for task in (self._ringing, self._ticking) if task)]

    async def _ended(self) -> None:
        if self._tasks:
            await asyncio.wait(self._tasks.values())

    def _begin(self, kind: str, tend: Callable[[], Awaitable[None]]) -> None:
        earlier = self._tasks.get(kind)
        if not self._interrupted.is_set() and (earlier is None or earlier.done()):
            self._tasks[kind] = asyncio.create_task(self._report_faults(kind, tend), name=kind)

    async def _report_faults(self, kind: str, tend: Callable[[], Awaitable[None]]) -> None:
        """Log only the first of a series of failures: the work is tried again each second."""
        try:
            await tend()
        except Exception as error:  # noqa: BLE001 - no fault of a duty may end the worker
            if kind not in self._failing:
                log = logger.warning if is_transient(error) else logger.error
                hint = {"hint": advice} if (advice := advice_on(error)) else {}
                log("duty_failed", duty=kind, error=type(error).__name__, sqlstate=sqlstate(error), **hint)
            self._failing.add(kind)
        else:
            self._failing.discard(kind)

    async def _learn(self) -> None:
        await self._deployment.learn()

    async def _tend_backfill(self) -> None:
        custody = await take_up_backfill(self._engine)
        if custody is not None:
            await drive(
                self._engine,
                custody.run.id,
                interrupted=self._interrupted,
                doorbell=self._doorbell,
                custody=custody,
            )

    async def _tend_audit(self) -> None:
        if await is_due(self._engine):
            await audit(
                self._engine,
                AuditOptions(),
                requested_by="schedule",
                interrupted=self._interrupted,
                doorbell=self._doorbell,
            )
        elif (custody := await take_up_audit(self._engine)) is not None:
            await carry_out(custody, interrupted=self._interrupted, doorbell=self._doorbell)
