"""An arq worker that drains as soon as the bell rings, outlives Redis, and drains without it.

A ring is a message and an arq job, its durable twin. The message starts a drain at once and takes the job
back afterwards (`listener.py`); where no message arrives, polling finds the job (`queue_watch.py`).
The job says nothing but that it is there, so none is run: arq's own way of reading and running jobs, which
some values end, is left to arq's own worker.

Of arq 0.28.0, which is frozen upstream, this overrides three methods; a test holds the source of
those against what they were written for.
"""

import asyncio
import contextlib
from signal import Signals
from typing import Any

from arq.worker import Worker
from redis.asyncio import Redis

from shared.redis.cancellation import heed_cancellation
from shared.redis.deployment import Deployment
from shared.redis.doorbell import ring_commands
from shared.redis.faults import REDIS_ERRORS, fault_of, faults_in
from shared.redis.outage import Fault
from shared.redis.rehearsal import rehearse
from worker.doorbell.listener import Listener
from worker.doorbell.queue_watch import QueueWatch
from worker.doorbell.redis_state import RedisState
from worker.drainer import Drainer
from worker.vitals.health import HEALTH_SECONDS
from worker.vitals.heartbeat import Heart

DIRECT_DRAIN_SECONDS = 0.2  # how often PostgreSQL is asked directly while Redis is of no use
SILENCE_SECONDS = 0.15  # a poll that takes longer means that Redis hangs
REHEARSE_SECONDS = 5.0


class WakeableWorker(Worker):
    """Drains when a message comes, not only when polling finds a job.

    A Redis that refuses, hangs or forgets never ends it: meanwhile it drains PostgreSQL directly. The
    heart is notified whether Redis is of use.
    """

    def __init__(
        self,
        *,
        drainer: Drainer,
        heart: Heart,
        deployment: Deployment,
        listener: Redis,
        **arq_settings: Any,  # noqa: ANN401 - arq's own
    ) -> None:
        super().__init__(**arq_settings)
        self._drainer = drainer
        self._deployment = deployment
        self._listener = listener
        self._state = RedisState(heart)
        self._rings = Listener(listener, self.pool, deployment=deployment, drainer=drainer, state=self._state)
        self._queue = QueueWatch(self.pool, self.health_check_key, HEALTH_SECONDS)
        self._poll_began: float | None = None

    async def main(self) -> None:
        """Run until cancelled; the death of any of these tasks ends the process."""
        self.ctx["redis"] = self.pool
        if self.on_startup:
            await self.on_startup(self.ctx)
        self._drainer.wake("doorbell")  # what is pending already does not wait for a ring
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._poll())
            tasks.create_task(self._rehearse())
            tasks.create_task(self._rings.listen())
            tasks.create_task(self._rings.answer())
            tasks.create_task(self._drain_without_redis())

    async def close(self) -> None:
        """Close everything, whether Redis answers or not."""
        with contextlib.suppress(*REDIS_ERRORS):
            await self._queue.forget_health()
        if self.on_shutdown:
            await self.on_shutdown(self.ctx)
        await self._listener.aclose(close_connection_pool=True)
        await self.pool.aclose(close_connection_pool=True)

    def handle_sig_wait_for_completion(self, signum: Signals) -> None:
        """Let the batch in hand finish and begin no other, then stop as arq does."""
        self._shutdown = self.loop.create_task(self._finish(signum))

    async def _finish(self, signum: Signals) -> None:
        await self._drainer.stop()
        super().handle_sig_wait_for_completion(signum)

    async def _poll(self) -> None:
        while True:
            heed_cancellation()
            self._poll_began = self.loop.time()
            try:
                fault = await self._take_up()
            except REDIS_ERRORS as error:
                fault = fault_of(error)
            self._state.note("polling", fault)
            self._poll_began = None
            await asyncio.sleep(self.poll_delay_s)

    async def _take_up(self) -> Fault | None:
        """Take a job whose ring no worker heard, and wake the drainer; return what Redis refuses.

        The job is gone before the drain looks at the outbox: what commits later rings again.
        """
        seen = await self._queue.look(self._deployment.known, leave_ours=self._rings.is_answering)
        if seen.is_rung:
            self._drainer.wake("doorbell")
        return seen.fault

    async def _rehearse(self) -> None:
        """Ask now and then whether Redis would take a ring: commands and APIs mostly have the same rights."""
        while True:
            heed_cancellation()
            commands = ring_commands(await self._deployment.named(), "bulk")
            faults: list[Fault] = []
            with contextlib.suppress(*REDIS_ERRORS):  # the poll reports what does not answer
                faults = faults_in(await rehearse(self.pool, commands), commands)
            self._state.note("ringing", faults[0] if faults else None)
            await asyncio.sleep(REHEARSE_SECONDS)

    async def _drain_without_redis(self) -> None:
        while True:
            await asyncio.sleep(DIRECT_DRAIN_SECONDS)
            hangs = self._poll_began is not None and self.loop.time() - self._poll_began > SILENCE_SECONDS
            if hangs or not self._state.is_well:
                self._drainer.wake("poll")
