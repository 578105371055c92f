"""Wake-ups that get lost."""

import asyncio
from typing import Any

from redis.asyncio.client import PubSub

from shared.doorbell import DIRTY_KEY
from worker.drainer import LaneDrainer


async def drain_then_clear(ctx: dict[str, Any]) -> None:
    """Do it the wrong way round: a commit between the last scan and the clearing does not ring."""
    await ctx["drainer"].drain("doorbell")
    await asyncio.sleep(0.01)
    await ctx["redis"].delete(DIRTY_KEY)


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
