"""Sleeping in a process that may be asked to end."""

import asyncio
import contextlib


async def rest(interrupted: asyncio.Event, seconds: float) -> None:
    """Sleep, but wake up when interrupted."""
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(seconds):
            await interrupted.wait()
