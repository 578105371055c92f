"""A Redis that answers is taken for one, however slow the machine."""

import pytest

from tests.processes import HANG_SECONDS

BOUNDS = (
    "shared.redis.doorbell.REDIS_TIMEOUT_SECONDS",
    "shared.redis.client.REDIS_TIMEOUT_SECONDS",
    "worker.doorbell.listener.REDIS_TIMEOUT_SECONDS",
    "worker.doorbell.listener.LISTEN_SECONDS",
    "worker.doorbell.arq_worker.SILENCE_SECONDS",
)


def be_patient_with_redis(patch: pytest.MonkeyPatch) -> None:
    """Let no bound on Redis's answers run out in this process: what rings, rings, and no poll replaces it."""
    for name in BOUNDS:
        patch.setattr(name, HANG_SECONDS)
