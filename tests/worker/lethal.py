"""`python -m tests.worker.lethal`: a worker that dies, without a word, of any event of one collection."""

import os
import signal
import sys
from collections.abc import Sequence

import asyncpg

from worker.process import main
from worker.relay import run as relay
from worker.relay.claim import ClaimedEvent
from worker.relay.outcomes import Settlement
from worker.relay.settle import settle

LETHAL = "lethal"


async def settle_or_die(
    connection: asyncpg.Connection, events: Sequence[ClaimedEvent], *, isolating: bool
) -> dict[int, Settlement]:
    if any(event.collection_id == LETHAL for event in events):
        os.kill(os.getpid(), signal.SIGKILL)
    return await settle(connection, events, isolating=isolating)


if __name__ == "__main__":
    relay.settle = settle_or_die  # type: ignore[attr-defined]
    sys.exit(main())
