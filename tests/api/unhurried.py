"""The API as it is where nobody gives up because something takes long: for tests of something else.

`python -m tests.api.unhurried`, with uvicorn's options, is a process of it. There BODY_SECONDS, if given, is
how long a body may take to arrive.
"""

import asyncio
import contextlib
import os
from collections.abc import AsyncIterator, Callable, Mapping
from typing import Any

import httpx
import uvicorn
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine

from api import context, health
from api.admin import verification
from api.gate import body as request_body
from shared.postgres.database import create_engine
from shared.redis import client as redis_client
from shared.redis import doorbell
from tests.processes import HANG_SECONDS, Running, free_port, running
from tests.twins.replacing import replaced

TENDED_FOR = "30 minutes"


def create_patient_engine(*arguments: Any, **options: Any) -> AsyncEngine:  # noqa: ANN401 - as the original
    """Make the API's engine, whose statements may take long."""
    return create_engine(*arguments, **options | {"statement_timeout_seconds": HANG_SECONDS})


def take_time(put: Callable[[object, str, object], None]) -> None:
    """Put other bounds in the place of the API's own, each by its module and its name there."""
    put(health, "POSTGRESQL_SECONDS", HANG_SECONDS)
    put(health, "REDIS_SECONDS", HANG_SECONDS)
    put(doorbell, "REDIS_TIMEOUT_SECONDS", HANG_SECONDS)
    put(redis_client, "REDIS_TIMEOUT_SECONDS", HANG_SECONDS)
    put(context, "create_engine", create_patient_engine)
    tended = str(verification.IS_TENDED)
    for soon in ("3 seconds'", "5 seconds'"):
        tended = replaced(tended, soon, f"{TENDED_FOR}'")
    put(verification, "IS_TENDED", text(tended))


@contextlib.asynccontextmanager
async def running_unhurried(env: Mapping[str, str]) -> AsyncIterator[tuple[Running, int]]:
    """Start a process of it on a free port and wait until it is ready; yields the process and its port."""
    port = free_port()
    arguments = ["-m", "tests.api.unhurried", "--port", str(port), "--no-access-log", "api.main:app"]
    with running(arguments, env) as api:
        async with asyncio.timeout(HANG_SECONDS):
            while not await is_ready(port):
                assert api.process.poll() is None, api.output
                await asyncio.sleep(0.05)
        yield api, port


async def is_ready(port: int) -> bool:
    async with httpx.AsyncClient(timeout=HANG_SECONDS) as client:
        try:
            return (await client.get(f"http://127.0.0.1:{port}/readyz")).is_success
        except httpx.TransportError:
            return False


if __name__ == "__main__":
    take_time(setattr)
    if seconds := os.environ.get("BODY_SECONDS"):
        request_body.BODY_SECONDS = float(seconds)
    uvicorn.main()
