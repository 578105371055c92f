"""Wake-ups that get lost."""

import asyncio
from typing import Any

import asyncpg
from redis.asyncio.client import PubSub

from shared.redis.doorbell import dismiss
from shared.redis.outage import Fault
from worker.doorbell.arq_worker import WakeableWorker
from worker.drainer import Drainer, LaneDrainer


async def drain_then_dismiss(self: WakeableWorker) -> Fault | None:
    """Do it the wrong way round: what commits between the last scan and the dismissal left no job."""
    seen = await self._queue.look(self._deployment.known, leave_ours=True)
    if names := self._deployment.known:
        await self._drainer.drain("doorbell")
        await asyncio.sleep(0.01)
        await dismiss(self.pool, names)
    return seen.fault


async def same_everywhere(_connection: asyncpg.Connection) -> str:
    """Take all databases for one."""
    return "0" * 16


def leave_sweeps_to_others(self: Drainer, reason: str) -> None:
    """Wait for one sweep of all workers on this Redis, which another database's may take."""
    if reason != "sweep":
        self.wake_live(reason)
        self.wake_bulk(reason)


def take_refusals_for_silence(error: BaseException, _command: str = "") -> Fault:
    """Say no more than that something failed."""
    return Fault(type(error).__name__)


def wake_unless_awake(self: LaneDrainer, reason: str) -> None:
    """Ignore who calls while a drain is under way: its last scan may be over."""
    if self._task is None or self._task.done():
        self._wanted = True
        self._task = asyncio.create_task(self._drain(reason))


async def wait_for_a_message(channel: PubSub) -> dict[str, Any]:
    """Take silence for quiet, however long it lasts."""
    while (message := await channel.get_message(timeout=1)) is None:
        pass
    return dict(message)
