"""A Redis that answers is taken for one, however slow the machine."""

import pytest

from tests.processes import HANG_SECONDS

BOUNDS = (
    "shared.doorbell.REDIS_TIMEOUT_SECONDS",
    "worker.wakeable.REDIS_TIMEOUT_SECONDS",
    "worker.wakeable.SILENCE_SECONDS",
    "worker.wakeable.LISTEN_SECONDS",
)


def be_patient_with_redis(patch: pytest.MonkeyPatch) -> None:
    """Let no bound on Redis's answers run out in this process: what rings, rings, and no poll replaces it."""
    for name in BOUNDS:
        patch.setattr(name, HANG_SECONDS)
    patch.setattr("shared.doorbell.DIRTY_MS", 1000 * HANG_SECONDS)
