"""Cancellation that arrives although a library swallowed it."""

import asyncio


def heed_cancellation() -> None:
    """Raise CancelledError when the running task was asked to end; loops call it once a round.

    redis-py sends under `asyncio.wait_for`, which on Python 3.11 returns normally when its awaitable
    ends in the same moment as the cancellation comes. Without this the loop would go on for ever.
    """
    task = asyncio.current_task()
    if task is not None and task.cancelling():
        raise asyncio.CancelledError
