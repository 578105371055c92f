"""Replaying any number of letters, a bounded number a transaction, and seeing what becomes of them."""

import asyncio
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
from worker.settled import until_settled

logger = structlog.get_logger(__name__)

# Served by outbox_events_pkey and outbox_dead_letters_pkey.
COUNT_PENDING = text("SELECT count(*) FROM outbox_events WHERE id = ANY(:ids)").bindparams(
    bindparam("ids", type_=ARRAY(BIGINT))
)
FIND_DEAD = text("SELECT id FROM outbox_dead_letters WHERE id = ANY(:ids) ORDER BY id").bindparams(
    bindparam("ids", type_=ARRAY(BIGINT))
)


@dataclass(slots=True)
class Replays:
    """What was replayed, what could not be, and, after a wait, what died again.

    replayed: letters. event_ids: of the events appended, one a collection. pending, dead_again: None unless
    the caller has waited for the workers.
    """

    replayed: int = 0
    event_ids: set[int] = field(default_factory=set)
    homeless: list[int] = field(default_factory=list)
    closed: list[int] = field(default_factory=list)
    pending: int | None = None
    dead_again: list[int] | None = None

    @property
    def is_complete(self) -> bool:
        """Whether everything that was asked for was done, as far as is known."""
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
        """Return what was done and what became of it."""
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


async def wait_for_replays(
    engine: AsyncEngine,
    replays: Replays,
    *,
    interrupted: asyncio.Event,
    on_stall: Callable[[int], None],
) -> None:
    """Wait until workers have settled the events, or the interrupt, and note what became of them.

    It also waits while PostgreSQL is away. `replays` receives `pending` and `dead_again`; on_stall is called
    as by `until_settled`.
    """
    ids = {"ids": sorted(replays.event_ids)}

    async def look() -> int:
        async with engine.connect() as connection:
            pending: int = (await connection.execute(COUNT_PENDING, ids)).scalar_one()
            dead_again = list((await connection.execute(FIND_DEAD, ids)).scalars())
        replays.pending, replays.dead_again = pending, dead_again
        return pending

    await until_settled(look, interrupted=interrupted, on_stall=on_stall, patience=Patience())
