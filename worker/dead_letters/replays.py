"""Replaying any number of letters, a bounded number a transaction, and seeing what becomes of them."""

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass, field

import structlog
from sqlalchemy import bindparam, text
from sqlalchemy.dialects.postgresql import ARRAY, BIGINT
from sqlalchemy.ext.asyncio import AsyncEngine

from shared import dead_letters
from shared.redis.doorbell import Doorbell
from worker.command_line.patience import Patience
from worker.dead_letters.terminal import counted

logger = structlog.get_logger(__name__)

LOOK_SECONDS = 0.1
AWAY_SECONDS = 1.0
STALL_SECONDS = 5.0

# Served by outbox_events_pkey and outbox_dead_letters_pkey.
COUNT_PENDING = text("SELECT count(*) FROM outbox_events WHERE id = ANY(:ids)").bindparams(
    bindparam("ids", type_=ARRAY(BIGINT))
)
FIND_DEAD = text("SELECT id FROM outbox_dead_letters WHERE id = ANY(:ids) ORDER BY id").bindparams(
    bindparam("ids", type_=ARRAY(BIGINT))
)


@dataclass(slots=True)
class Replays:
    """What was replayed, what could not be, and, once it was waited for, what died again.

    replayed: letters. event_ids: of the events appended, one a collection. pending, dead_again: None while
    nobody has waited for the workers.
    """

    replayed: int = 0
    event_ids: set[int] = field(default_factory=set)
    homeless: list[int] = field(default_factory=list)
    closed: list[int] = field(default_factory=list)
    pending: int | None = None
    dead_again: list[int] | None = None

    @property
    def is_complete(self) -> bool:
        """Say whether everything that was asked for was done, as far as is known."""
        return not (self.homeless or self.closed or self.pending or self.dead_again)

    def as_json(self) -> dict[str, object]:
        """Return the line that a machine reads."""
        return {
            "replayed": self.replayed,
            "events": len(self.event_ids),
            "no_collection": self.homeless,
            "not_dead": self.closed,
            "pending": self.pending,
            "dead_again": self.dead_again,
        }

    def sentence(self) -> str:
        """Say what was done and what became of it."""
        done = f"Replayed {counted(self.replayed)} with {counted(len(self.event_ids), 'event')}."
        if self.pending is None:
            return f"{done} The workers apply them after users' writes."
        if self.pending:
            return f"{done} {self.pending:,} of them are still pending."
        if self.dead_again:
            return f"{done} {len(self.dead_again):,} died again: see `list`."
        return f"{done} The workers have settled all of them."


async def replay_all(
    engine: AsyncEngine, pages: AsyncIterator[Sequence[int]], doorbell: Doorbell | None
) -> Replays:
    """Replay page after page of letters, each in a transaction of its own, and ring after each."""
    replays = Replays()
    async for ids in pages:
        async with engine.begin() as connection:
            done = await dead_letters.replay(connection, ids)
        replays.replayed += len(done.replayed)
        replays.event_ids |= set(done.replayed.values())
        replays.homeless += done.homeless
        replays.closed += done.closed
        if doorbell is not None:
            doorbell.press()
        logger.info(
            "dead_letters_replayed",
            letters=len(done.replayed),
            no_collection=len(done.homeless),
            event_ids=sorted(done.replayed)[: dead_letters.MOST_NAMED],
        )
    return replays


async def until_settled(
    engine: AsyncEngine,
    replays: Replays,
    *,
    interrupted: asyncio.Event,
    on_stall: Callable[[int], None],
) -> None:
    """Wait until the workers have settled the events, or the interrupt, and note what became of them.

    Args:
        engine: lends a connection for a moment, several times a second.
        replays: receives `pending` and `dead_again`.
        interrupted: ends the waiting.
        on_stall: called with the number of pending events each time five seconds passed without progress.

    While PostgreSQL is away it is waited for.

    """
    ids = {"ids": sorted(replays.event_ids)}
    fewest, changed_at = len(replays.event_ids), time.monotonic()
    patience = Patience()
    while True:
        with patience.waiting():
            async with engine.connect() as connection:
                replays.pending = (await connection.execute(COUNT_PENDING, ids)).scalar_one()
                replays.dead_again = list((await connection.execute(FIND_DEAD, ids)).scalars())
        if interrupted.is_set() or not (patience.is_away or replays.pending):
            return
        if patience.is_away or replays.pending is None:
            pass
        elif replays.pending < fewest:
            fewest, changed_at = replays.pending, time.monotonic()
        elif time.monotonic() - changed_at > STALL_SECONDS:
            changed_at = time.monotonic()
            on_stall(replays.pending)
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(interrupted.wait(), AWAY_SECONDS if patience.is_away else LOOK_SECONDS)
