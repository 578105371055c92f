"""Draining as a duty of the process: one drain at a time, patient with faults, willing to stop."""

import asyncio
import random

import structlog
from sqlalchemy.ext.asyncio import AsyncEngine

from shared.faults import UNDEFINED_TABLE, is_transient, sqlstate
from worker.relay import log_batch, run_once

logger = structlog.get_logger(__name__)

FIRST_RETRY_SECONDS = 0.05
LAST_RETRY_SECONDS = 2.0


class Drainer:
    """Runs batches until one is not full, however many callers ask at the same time."""

    def __init__(self, engine: AsyncEngine) -> None:
        """Take the engine to work on; the caller disposes of it."""
        self._engine = engine
        self._idle = asyncio.Event()
        self._idle.set()
        self._wanted = False
        self._stopping = False
        self._failures = 0

    async def drain(self, wake: str) -> None:
        """Settle everything that was pending when this was called, unless another call is at it.

        A call that finds a drain under way makes that one look once more, and returns at once.

        Args:
            wake: what woke us, for the log: `doorbell`, `sweep` or `poll`.

        """
        self._wanted = True
        if not self._idle.is_set():
            return
        self._idle.clear()
        try:
            while self._wanted and not self._stopping:
                self._wanted = False
                while await self._settle_one_batch(wake):
                    pass
        finally:
            self._idle.set()

    async def stop(self) -> None:
        """Let the batch in hand finish, begin no other, and return when it is done."""
        self._stopping = True
        await self._idle.wait()

    async def _settle_one_batch(self, wake: str) -> bool:
        """Say whether there may be more. A batch that failed changed nothing; a later wake-up tries again."""
        try:
            batch = await run_once(self._engine)
        except Exception as error:  # noqa: BLE001 - the one catch-all: no fault of a batch may end the worker
            await self._back_off(error)
            return False
        self._failures = 0
        if batch.events:
            log_batch(batch, wake)
        return batch.is_full and not self._stopping

    async def _back_off(self, error: Exception) -> None:
        self._failures += 1
        code = sqlstate(error)
        log = logger.warning if is_transient(error) else logger.error
        log(
            "batch_failed",
            transient=is_transient(error),
            error=type(error).__name__,
            sqlstate=code,
            failures=self._failures,
            **({"hint": "run `alembic upgrade head`"} if code == UNDEFINED_TABLE else {}),
        )
        ceiling = min(FIRST_RETRY_SECONDS * 2 ** min(self._failures, 10), LAST_RETRY_SECONDS)
        await asyncio.sleep(random.uniform(0, ceiling))  # noqa: S311 - jitter, not a secret
