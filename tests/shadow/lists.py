"""Users who list, and waiting for what is done once they have their answer."""

import asyncio
from typing import Any

import httpx

from api.shadow.sampler import Shadow
from tests.processes import HANG_SECONDS

LIST = "/projects/p1/collections"
OWNER = {"User-ID": "owner"}


async def listed(client: httpx.AsyncClient) -> list[dict[str, Any]]:
    answer = await client.get(LIST, headers=OWNER)
    assert answer.status_code == 200, answer.text
    rows: list[dict[str, Any]] = answer.json()
    return rows


async def compared(client: httpx.AsyncClient, shadow: Shadow, times: int = 1) -> list[dict[str, Any]]:
    """List so often, each time until the list was compared; return the last answer."""
    rows: list[dict[str, Any]] = []
    for _ in range(times):
        rows = await listed(client)
        await done(shadow)
    return rows


async def done(shadow: Shadow) -> None:
    """Wait for the comparisons that are under way."""
    async with asyncio.timeout(HANG_SECONDS):
        while shadow._at_work:  # noqa: SLF001 - nobody else asks
            await asyncio.wait(set(shadow._at_work))  # noqa: SLF001


def counted(shadow: Shadow) -> dict[str, int]:
    """Return what came of all lists so far, without what never came."""
    return {outcome.value: count for outcome, count in shadow.counts.totals.lists.items() if count}
