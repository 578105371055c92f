"""The loop that one would write by hand, on collection-sync's own outbox: see `benchmarks.minimal_loop`."""

import asyncio
from typing import Any

import asyncpg

from benchmarks.minimal_loop import ACKNOWLEDGE, BATCH, CLAIM, POLL_SECONDS, apply
from benchmarks.peers.systems.collection_sync import install, writing
from benchmarks.peers.systems.system import Applied

__all__ = ["SETTINGS", "install", "work", "writing"]

SETTINGS: dict[str, Any] = {"batch": BATCH, "poll": f"{POLL_SECONDS} s"}


async def work(url: str, applied: Applied) -> None:
    """Run its batches, and report their events; it has no log that would."""
    connection = await asyncpg.connect(url)
    while True:
        async with connection.transaction():
            if events := await connection.fetch(CLAIM, BATCH):
                await apply(connection, sorted(events))
                await connection.execute(ACKNOWLEDGE, [event["id"] for event in events])
        for event in events:
            applied(event["id"])
        if not events:
            await asyncio.sleep(POLL_SECONDS)
