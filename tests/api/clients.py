"""Clients of the API, and the names that the tests use of the recorded seed."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import httpx
from fastapi import FastAPI

from api.gate.admission import Bulkhead
from tests.api.recording import NAMES
from tests.processes import HANG_SECONDS

OWNER = {"User-ID": NAMES["OWNER"]}
STRANGER = {"User-ID": NAMES["STRANGER"]}
P1, P2, P3 = NAMES["P1"], NAMES["P2"], NAMES["P3"]
ALL = f"/projects/{P1}/collections"
SEEDED = f"{ALL}/{NAMES['C_SEED']}"
UNKNOWN = f"{ALL}/{NAMES['MISSING']}"
NOT_LINKED = f"{ALL}/{NAMES['C_NOLINK']}"  # has no row in project_collections


async def until_full(bulkhead: Bulkhead) -> None:
    """Wait until no place in it is left."""
    async with asyncio.timeout(HANG_SECONDS):
        while not bulkhead._places.locked():  # noqa: SLF001 - nobody else asks
            await asyncio.sleep(0.01)


@asynccontextmanager
async def started(app: FastAPI) -> AsyncIterator[httpx.AsyncClient]:
    """Start the app and hand out a client for it. What the app raises is answered as a server would."""
    transport = httpx.ASGITransport(app, raise_app_exceptions=False)
    async with (
        app.router.lifespan_context(app),
        httpx.AsyncClient(transport=transport, base_url="http://api.example") as client,
    ):
        yield client


async def create(client: httpx.AsyncClient, name: str = "Mine", **fields: object) -> str:
    """Create a collection in the owner's project and return its path."""
    answer = await client.post(ALL, headers=OWNER, json={"collection_name": name, **fields})
    assert answer.status_code == 200, answer.text
    return f"{ALL}/{answer.json()['collection_id']}"
