"""A broken twin of the API, started like uvicorn: it appends the event in a second transaction."""

import asyncio
import runpy

import api.collections
from api import write_statement
from api.context import CollectionSync
from api.write_statement import Write, Written
from shared.events import Source
from shared.outbox import append_event
from tests.twins.replacing import replaced
from tests.twins.writes import NOT_APPENDED

LATENESS_SECONDS = 2.0

right_write = api.collections.write
pending: set[asyncio.Task[None]] = set()


async def write(sync: CollectionSync, wanted: Write) -> Written:
    """Let the write commit without its event; append it afterwards, if we live so long."""

    async def append() -> None:
        await asyncio.sleep(LATENESS_SECONDS)
        async with sync.engine.begin() as connection:
            await append_event(connection, wanted.collection_id, wanted.event_type, Source.API)

    row = await right_write(sync, wanted)
    task = asyncio.create_task(append())
    pending.add(task)
    task.add_done_callback(pending.discard)
    return row


if __name__ == "__main__":
    for name in ("CREATE", "CHANGE"):
        right = getattr(write_statement, name)
        setattr(write_statement, name, replaced(right, write_statement.APPENDED, NOT_APPENDED))
    vars(api.collections)["write"] = write
    runpy.run_module("uvicorn", run_name="__main__", alter_sys=True)
