"""A broken twin of the API, started like uvicorn: it appends the event in a second transaction."""

import asyncio
import itertools
import runpy

from sqlalchemy.ext.asyncio import AsyncConnection

import api.collections
from shared.events import EventType, Source
from shared.outbox import append_event

LATENESS_SECONDS = 2.0

numbers = itertools.count(1)
pending: set[asyncio.Task[None]] = set()


async def append_late(
    connection: AsyncConnection, collection_id: str, event_type: EventType, source: Source
) -> int:
    """Let the write commit without its event; append it afterwards, if we live so long."""

    async def append() -> None:
        await asyncio.sleep(LATENESS_SECONDS)
        async with connection.engine.begin() as another:
            await append_event(another, collection_id, event_type, source)

    task = asyncio.create_task(append())
    pending.add(task)
    task.add_done_callback(pending.discard)
    return next(numbers)


if __name__ == "__main__":
    vars(api.collections)["append_event"] = append_late
    runpy.run_module("uvicorn", run_name="__main__", alter_sys=True)
