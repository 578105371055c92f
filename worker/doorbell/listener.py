"""Hearing rings: the messages that start a drain at once, and the job of arq's that each of them left."""

import asyncio
import contextlib
from typing import Any

from redis.asyncio import Redis
from redis.asyncio.client import PubSub

from shared.postgres.advice import advice_on
from shared.redis.cancellation import heed_cancellation
from shared.redis.client import REDIS_TIMEOUT_SECONDS
from shared.redis.deployment import Deployment, Names
from shared.redis.doorbell import dismiss
from shared.redis.faults import REDIS_ERRORS, fault_of
from shared.redis.outage import Fault
from worker.doorbell.redis_state import RedisState
from worker.drainer import Drainer

RESUBSCRIBE_SECONDS = 0.5
UNNAMED_SECONDS = 2.0
LISTEN_SECONDS = 2.0  # of silence, then Redis is asked whether it is still there
# One answer for all the rings of so long.
ANSWER_SECONDS = 0.1


class Listener:
    """Wakes the lane that a ring is for, and takes the ring's job back once it was answered."""

    def __init__(
        self, listener: Redis, pool: Redis, *, deployment: Deployment, drainer: Drainer, state: RedisState
    ) -> None:
        self._listener = listener
        self._pool = pool
        self._deployment = deployment
        self._drainer = drainer
        self._state = state
        self._rung = asyncio.Event()
        self.is_answering = False  # a ring was heard whose job is still there

    async def listen(self) -> None:
        """Listen until cancelled, and again to whatever the database is called by then."""
        while True:
            heed_cancellation()
            names = await self._named()
            try:
                async with self._listener.pubsub() as channel:
                    await channel.subscribe(*names.channels)
                    while self._deployment.known == names:
                        heed_cancellation()
                        self._hear(await next_message(channel), names)
            except REDIS_ERRORS as error:
                self._state.note("listening", fault_of(error, "SUBSCRIBE"))
                self.is_answering = False  # the job stays, for rings that we do not hear meanwhile
                await asyncio.sleep(RESUBSCRIBE_SECONDS)

    async def _named(self) -> Names:
        """Wait for the names, and complain where the database refuses them: nothing can be heard then."""
        while True:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(UNNAMED_SECONDS):
                    return await self._deployment.named()
            obstacle = self._deployment.obstacle
            if obstacle is not None and (hint := advice_on(obstacle)):
                self._state.note("listening", Fault(type(obstacle).__name__, hint))

    def _hear(self, message: dict[str, Any], names: Names) -> None:
        """Handle a message: a ring says nothing but that it rang, others only that Redis is there."""
        self._state.note("listening", None)
        if message["type"] != "message":
            return
        if message["channel"] == names.channel("live").encode():
            self._drainer.wake_live("doorbell")
        else:
            self._drainer.wake_bulk("doorbell")
        self.is_answering = True
        self._rung.set()

    async def answer(self) -> None:
        """Take back the job of the rings that were heard, once their events are settled; until cancelled."""
        while True:
            heed_cancellation()
            await self._rung.wait()
            await asyncio.sleep(ANSWER_SECONDS)
            self._rung.clear()
            await self._drainer.live_settled()
            if self.is_answering and (names := self._deployment.known):
                with contextlib.suppress(*REDIS_ERRORS):
                    await dismiss(self._pool, names)
            self.is_answering = self._rung.is_set()


async def next_message(channel: PubSub) -> dict[str, Any]:
    """Return what comes next: a ring, or, after a while without any, Redis's word that it is there.

    A server that vanished without closing its connections would be listened to for hours, although
    another has taken its place.

    Raises:
        TimeoutError: Redis says nothing at all.

    """
    message: dict[str, Any] | None = await channel.get_message(timeout=LISTEN_SECONDS)
    if message is None:
        await channel.ping()
        message = await channel.get_message(timeout=REDIS_TIMEOUT_SECONDS)
    if message is None:
        raise TimeoutError
    return message
