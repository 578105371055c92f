"""A Redis that answers is taken for one, however slow the machine."""

import pytest

from tests.processes import HANG_SECONDS

BOUNDS = (
    "shared.doorbell.REDIS_TIMEOUT_SECONDS",
    "shared.redis_client.REDIS_TIMEOUT_SECONDS",
    "worker.ear.REDIS_TIMEOUT_SECONDS",
    "worker.ear.LISTEN_SECONDS",
    "worker.wakeable.SILENCE_SECONDS",
)


def be_patient_with_redis(patch: pytest.MonkeyPatch) -> None:
    """Let no bound on Redis's answers run out in this process: what rings, rings, and no poll replaces it."""
    for name in BOUNDS:
        patch.setattr(name, HANG_SECONDS)
