"""However Redis fails while a job is started, arq's slot for it is given back, and once."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
import redis.exceptions
from redis.asyncio.client import Pipeline

from shared.doorbell import QUEUE_NAME, open_redis
from shared.settings import Settings
from tests.processes import HANG_SECONDS
from worker.main import arq_settings, build_worker

MOMENTS = {  # by what fails, once it was done
    "before anything was asked": "watch",
    "as the job is left to another worker": "__aexit__",
    "after the job was started": "__aexit__",
}


@pytest.mark.parametrize("moment", MOMENTS)
async def test_a_slot_is_given_back_once_when_redis_fails(
    moment: str, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    worker = build_worker(settings, {**arq_settings(settings), "handle_signals": False})
    real: Callable[..., Awaitable[Any]] = getattr(Pipeline, MOMENTS[moment])

    async def fail(*arguments: Any) -> None:  # noqa: ANN401 - stands for any call of redis-py
        await real(*arguments)
        raise redis.exceptions.TimeoutError

    async with open_redis(settings.redis_url.get_secret_value()) as client:
        if moment == "after the job was started":
            await client.zadd(QUEUE_NAME, {"job": 1})
        with monkeypatch.context() as patch:
            patch.setattr(Pipeline, MOMENTS[moment], fail)
            with pytest.raises(redis.exceptions.TimeoutError):
                await worker.start_jobs([b"job"])
        async with asyncio.timeout(HANG_SECONDS):
            await asyncio.gather(*worker.tasks.values())
    assert len(worker.tasks) == (moment == "after the job was started")
    await worker.close()
    assert worker.job_counter == 0
    free = 0
    while not worker.sem.locked():
        await worker.sem.acquire()
        free += 1
    assert free == worker.max_jobs + 1  # as arq begins
