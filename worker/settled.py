"""Waiting until workers have settled the events that a backfill, a repair or a replay appended."""

import asyncio
import math
import time
from collections.abc import Awaitable, Callable

from worker.command_line.patience import Patience
from worker.rest import rest

SHORTEST_REST_SECONDS = 0.1
LONGEST_REST_SECONDS = 2.0
RESTS_PER_LOOK = 9  # so that counting many takes a tenth of the time
AWAY_REST_SECONDS = 1.0
STALL_SECONDS = 5.0
STALL_HINT = "is a worker running? start one with `python -m worker`"


async def until_settled(  # noqa: PLR0913 - each is a choice of the caller's
    count: Callable[[], Awaitable[int]],
    *,
    interrupted: asyncio.Event,
    watch: Callable[[int, float], None] | None = None,
    on_stall: Callable[[int], None] | None = None,
    patience: Patience | None = None,
    longest_stall_seconds: float = math.inf,
) -> bool:
    """Wait until none of the events is pending; return whether that was seen.

    Args:
        count: returns how many are pending.
        interrupted: set it to end the wait.
        watch: called after each look with the number pending, and the seconds since it last fell.
        on_stall: called with the number pending each time it has not fallen for STALL_SECONDS.
        patience: lets the wait outlast faults of the database that pass; without it they are raised.
        longest_stall_seconds: the wait ends when the number has not fallen for so long.

    """
    fewest, fell_at, stalled_at = math.inf, time.monotonic(), time.monotonic()
    while True:
        began = time.monotonic()
        pending = await _look(count, patience)
        now = time.monotonic()
        if pending is not None:
            if pending < fewest:
                fewest, fell_at, stalled_at = pending, now, now
            if watch is not None:
                watch(pending, now - fell_at)
            if pending == 0:
                return True
            if now - stalled_at > STALL_SECONDS:
                stalled_at = now
                if on_stall is not None:
                    on_stall(pending)
        if interrupted.is_set() or now - fell_at >= longest_stall_seconds:
            return False
        seconds = max(SHORTEST_REST_SECONDS, RESTS_PER_LOOK * (now - began))
        seconds = AWAY_REST_SECONDS if pending is None else min(seconds, LONGEST_REST_SECONDS)
        await rest(interrupted, min(seconds, longest_stall_seconds))


async def _look(count: Callable[[], Awaitable[int]], patience: Patience | None) -> int | None:
    """Return the count; None while PostgreSQL is away."""
    if patience is None:
        return await count()
    with patience.waiting():
        return await count()
    return None


def stall_sentence(pending: int) -> str:
    """Return the sentence for an operator whose command waits in vain."""
    return f"{pending:,} events are pending and none is settled: {STALL_HINT}"
