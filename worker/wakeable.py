"""An arq worker that drains as soon as the bell rings, outlives Redis, and drains without it.

The bell publishes a message and queues an arq job, its durable twin. The message starts a drain at
once and takes the job back afterwards; where no message arrives, polling finds the job.

Of arq 0.28.0, which is frozen upstream, this overrides five methods; a test holds the source of
those against what they were written for.
"""

import asyncio
import contextlib
import time
from signal import Signals
from typing import Any

import structlog
from arq.worker import Worker
from redis.asyncio import Redis
from redis.asyncio.client import PubSub

from shared.cancellation import heed_cancellation
from shared.doorbell import BULK_CHANNEL, REDIS_ERRORS, REDIS_TIMEOUT_SECONDS, WAKE_CHANNEL, dismiss
from worker.drainer import Drainer
from worker.heartbeat import Heart

logger = structlog.get_logger(__name__)

DIRECT_DRAIN_SECONDS = 0.2  # how often PostgreSQL is asked directly while Redis is away
SILENCE_SECONDS = 0.15  # a poll that takes longer means that Redis hangs
RESUBSCRIBE_SECONDS = 0.5
LISTEN_SECONDS = 2.0  # of silence, then Redis is asked whether it is still there
# One answer for all the rings of so long. Until then a job is queued, so the next rings need not queue one.
ANSWER_SECONDS = 0.1
CLOCK_STEP_SECONDS = 1.0  # more than slewing does between two polls


class WakeableWorker(Worker):
    """Drains when a message comes, not only when polling finds a job.

    A Redis that refuses, hangs or forgets never ends it: meanwhile it drains PostgreSQL directly.
    """

    def __init__(
        self,
        drainer: Drainer,
        heart: Heart,
        listener: Redis,
        **arq_settings: Any,  # noqa: ANN401 - arq's own
    ) -> None:
        """Take what arq's worker takes, the drainer for the time without Redis, and a client to listen on.

        The heart is told whether Redis answers.
        """
        super().__init__(**arq_settings)
        self._drainer = drainer
        self._heart = heart
        self._listener = listener
        self._rung = asyncio.Event()
        self._heard: set[str] = set()  # the jobs of the rings that we heard
        self._given_back = 0  # slots, of jobs that have finished
        self._poll_began: float | None = None
        self._redis_away = False
        self._clock_ahead: float | None = None  # of the monotonic one, in seconds

    async def main(self) -> None:
        """Run until cancelled; the death of any of these tasks ends the process."""
        self.ctx["redis"] = self.pool
        if self.on_startup:
            await self.on_startup(self.ctx)
        self._drainer.wake("doorbell")  # what is pending already does not wait for a ring
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._poll())
            tasks.create_task(self._listen())
            tasks.create_task(self._answer_rings())
            tasks.create_task(self._drain_without_redis())

    async def start_jobs(self, job_ids: list[bytes]) -> None:
        """Start jobs as arq does, but give the slot back that arq leaks when Redis fails in between.

        It leaks none where Redis fails as arq leaves a job to another worker, or has started it. Those whose
        rings we heard are about to be taken back. Entries whose names are no text are nobody's rings: arq
        would die of them again and again.
        """
        strange = [job_id for job_id in job_ids if not job_id.isascii()]
        if strange:
            await self.pool.zrem(self.queue_name, *strange)
        known, taken = set(self.tasks.values()), self.job_counter + self._given_back
        try:
            await super().start_jobs(
                [job_id for job_id in job_ids if job_id.isascii() and job_id.decode() not in self._heard]
            )
        except REDIS_ERRORS:
            started = len(set(self.tasks.values()) - known)
            if self.job_counter + self._given_back > taken + started:
                self.job_counter -= 1
                self.sem.release()
            raise

    def _release_sem_dec_counter_on_complete(self) -> None:
        """Give a finished job's slot back, as arq does, and count it."""
        self._given_back += 1
        super()._release_sem_dec_counter_on_complete()

    async def close(self) -> None:
        """Close everything, whether Redis answers or not."""
        for task in self.tasks.values():
            task.cancel()
        await asyncio.gather(*self.tasks.values(), return_exceptions=True)
        with contextlib.suppress(*REDIS_ERRORS):
            await self.pool.delete(self.health_check_key)
        if self.on_shutdown:
            await self.on_shutdown(self.ctx)
        await self._listener.aclose(close_connection_pool=True)
        await self.pool.aclose(close_connection_pool=True)

    def handle_sig_wait_for_completion(self, signum: Signals) -> None:
        """Take no further job, let the batch in hand finish, then stop as arq does."""
        self.allow_pick_jobs = False
        self._shutdown = self.loop.create_task(self._finish(signum))

    async def _finish(self, signum: Signals) -> None:
        await self._drainer.stop()
        super().handle_sig_wait_for_completion(signum)

    async def _poll(self) -> None:
        while True:
            heed_cancellation()
            self._poll_began = self.loop.time()
            self._heed_clock()
            try:
                await self._poll_iteration()
            except REDIS_ERRORS as error:
                self._note_redis(away=True, error=type(error).__name__)
                self._forget_finished_jobs()
            else:
                self._note_redis(away=False)
            self._poll_began = None
            await asyncio.sleep(self.poll_delay_s)

    def _heed_clock(self) -> None:
        """Forget what arq planned by the time of day when that was set: it would wait until then.

        Otherwise a clock that is set back by an hour stops sweeps, duties and the health key for an hour.
        """
        ahead = time.time() - self.loop.time()
        if self._clock_ahead is not None and abs(ahead - self._clock_ahead) > CLOCK_STEP_SECONDS:
            self._last_health_check = 0
            for job in self.cron_jobs:
                job.next_run = None
        self._clock_ahead = ahead

    async def _listen(self) -> None:
        while True:
            heed_cancellation()
            try:
                async with self._listener.pubsub() as channel:
                    await channel.subscribe(WAKE_CHANNEL, BULK_CHANNEL)
                    while True:
                        heed_cancellation()
                        self._hear(await next_message(channel))
            except REDIS_ERRORS:  # the poll loop reports it
                self._heard = set()  # their jobs stay, for rings that we do not hear meanwhile
                await asyncio.sleep(RESUBSCRIBE_SECONDS)

    def _hear(self, message: dict[str, Any]) -> None:
        """Take a ring; what is none says only that Redis is there."""
        if message["type"] != "message":
            return
        if message["channel"] == WAKE_CHANNEL.encode():
            self._drainer.wake_live("doorbell")
        else:
            self._drainer.wake_bulk("doorbell")
        if message["data"]:
            self._heard.add(message["data"].decode(errors="replace"))  # anybody may have published it
            self._rung.set()

    async def _answer_rings(self) -> None:
        """Take back the jobs whose rings we heard, once their events are settled."""
        while True:
            heed_cancellation()
            await self._rung.wait()
            await asyncio.sleep(ANSWER_SECONDS)
            self._rung.clear()
            answered = set(self._heard)
            await self._drainer.live_settled()
            if still_heard := answered & self._heard:
                with contextlib.suppress(*REDIS_ERRORS):
                    await dismiss(self.pool, still_heard)
            self._heard -= answered

    async def _drain_without_redis(self) -> None:
        while True:
            await asyncio.sleep(DIRECT_DRAIN_SECONDS)
            hangs = self._poll_began is not None and self.loop.time() - self._poll_began > SILENCE_SECONDS
            if self._redis_away or hangs:
                self._drainer.wake("poll")

    def _note_redis(self, *, away: bool, error: str | None = None) -> None:
        if away and not self._redis_away:
            logger.warning("redis_lost", error=error)
        if self._redis_away and not away:
            logger.info("redis_restored")
        self._redis_away = away
        self._heart.note_redis(away=away)

    def _forget_finished_jobs(self) -> None:
        """Do what arq's poll does after it has talked to Redis; the outbox remembers what is undone."""
        for job_id, task in list(self.tasks.items()):
            if task.done():
                del self.tasks[job_id]
                if not task.cancelled() and (error := task.exception()):
                    logger.warning("job_unfinished", error=type(error).__name__)


async def next_message(channel: PubSub) -> dict[str, Any]:
    """Return what comes next: a ring, or, after a while without any, Redis's word that it is there.

    A server that vanished without closing its connections would be listened to for hours, although
    another has taken its place.

    Raises:
        TimeoutError: it says nothing at all.

    """
    message: dict[str, Any] | None = await channel.get_message(timeout=LISTEN_SECONDS)
    if message is None:
        await channel.ping()
        message = await channel.get_message(timeout=REDIS_TIMEOUT_SECONDS)
    if message is None:
        raise TimeoutError
    return message
