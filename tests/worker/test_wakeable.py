import asyncio
import contextlib
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from shared.redis import doorbell
from shared.redis.client import open_redis
from shared.redis.deployment import Lane
from shared.redis.doorbell import Doorbell
from shared.settings import Settings
from tests.doorbell.patience import be_patient_with_redis
from tests.doorbell.place import listened_to, nowhere
from tests.processes import HANG_SECONDS
from worker.drainer import Drainer
from worker.main import arq_settings, build_worker


@pytest.fixture
def called(monkeypatch: pytest.MonkeyPatch) -> asyncio.Event:
    """Set as soon as Redis is asked; and nothing is done because Redis is slow to answer."""
    be_patient_with_redis(monkeypatch)
    return asyncio.Event()


def swallowing(called: asyncio.Event) -> Callable[..., Awaitable[None]]:
    """Return what does as `asyncio.wait_for` of Python 3.11 may: it returns normally when cancelled."""

    async def swallow(*_arguments: Any) -> None:  # noqa: ANN401 - stands for any call of redis-py
        called.set()
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.sleep(3600)

    return swallow


async def test_a_worker_ends_although_redis_swallows_the_cancellation(
    settings: Settings, called: asyncio.Event, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("worker.doorbell.arq_worker.WakeableWorker._take_up", swallowing(called))
    worker = build_worker(settings, {**arq_settings(settings), "handle_signals": False})
    running = asyncio.create_task(worker.main())
    await asyncio.wait_for(called.wait(), HANG_SECONDS)
    running.cancel()
    async with asyncio.timeout(HANG_SECONDS):
        await asyncio.wait([running])
        await worker.close()
    assert running.cancelled()


async def test_a_doorbell_ends_although_redis_swallows_the_cancellation(
    redis_url: str, called: asyncio.Event, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(doorbell, "ring", swallowing(called))
    async with open_redis(redis_url) as redis:
        bell = Doorbell(redis, nowhere())
        ringing = asyncio.create_task(bell.run())
        bell.press()
        await asyncio.wait_for(called.wait(), HANG_SECONDS)
        ringing.cancel()
        async with asyncio.timeout(HANG_SECONDS):
            await asyncio.wait([ringing])
    assert ringing.cancelled()


@pytest.mark.usefixtures("called")
@pytest.mark.parametrize("lane", ["live", "bulk"])
async def test_a_ring_wakes_the_lane_that_it_is_for_and_no_other(
    lane: Lane, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    woken: list[str] = []
    monkeypatch.setattr("worker.main.POLL_SECONDS", 3600)  # polling for the ring's job would wake both
    arguments = {**arq_settings(settings), "on_startup": None, "handle_signals": False}
    worker = build_worker(settings, arguments)
    names = await arguments["ctx"]["deployment"].learn()
    running = asyncio.create_task(worker.main())
    async with open_redis(settings.redis_url.get_secret_value()) as redis:
        await listened_to(redis, lane)  # before it listens it looks at everything
        monkeypatch.setattr(Drainer, "wake_live", lambda _self, _reason: woken.append("live"))
        monkeypatch.setattr(Drainer, "wake_bulk", lambda _self, _reason: woken.append("bulk"))
        await doorbell.ring(redis, names, lane)
        async with asyncio.timeout(HANG_SECONDS):
            while not woken:
                await asyncio.sleep(0.01)
    running.cancel()
    await asyncio.wait([running])
    await worker.close()
    assert woken == [lane]
