"""Replaying any number of letters, a bounded number a transaction, and seeing what becomes of them."""

import asyncio
import math
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass, field

import structlog
from sqlalchemy import bindparam, text
from sqlalchemy.dialects.postgresql import ARRAY, BIGINT
from sqlalchemy.ext.asyncio import AsyncEngine

from shared import dead_letters
from shared.redis.doorbell import Doorbell
from worker.command_line.patience import Patience
from worker.dead_letters.terminal import because, counted
from worker.settled import STALL_HINT, until_settled

logger = structlog.get_logger(__name__)

MOST_SAID = 20  # letters with a sentence each

# One snapshot, in which an event waits, died, or is done with. An event that is gone without having been
# applied, or overtaken by a newer one that was, was obsolete. Served by the primary keys of all four.
OUTCOMES = text("""
    SELECT letter.id AS letter_id, letter.replayed_as AS event_id,
        CASE
            WHEN event.id IS NOT NULL THEN 'pending'
            WHEN again.id IS NOT NULL THEN 'dead'
            WHEN guard.version >= letter.replayed_as THEN 'applied'
            ELSE 'obsolete'
        END AS outcome,
        again.sqlstate, again.error,
        (again.sqlstate, again.error) IS NOT DISTINCT FROM (letter.sqlstate, letter.error) AS is_same_reason
    FROM outbox_dead_letters AS letter
    LEFT JOIN outbox_events AS event ON event.id = letter.replayed_as
    LEFT JOIN outbox_dead_letters AS again ON again.id = letter.replayed_as
    LEFT JOIN applied_versions AS guard ON guard.collection_id = letter.aggregate_id
    WHERE letter.id = ANY(:letter_ids)
    ORDER BY letter.id
""").bindparams(bindparam("letter_ids", type_=ARRAY(BIGINT)))


@dataclass(frozen=True, slots=True)
class ReplayedLetter:
    """What became of the event that replayed a letter.

    outcome: pending, dead, applied, or obsolete: its collection is gone, or belies it. sqlstate, error: why
    it died again, as the letter with the event's id has it.
    """

    letter_id: int
    event_id: int
    outcome: str
    sqlstate: str | None = None
    error: str | None = None
    is_same_reason: bool = False

    @property
    def sentence(self) -> str:
        """Return it as the command says it."""
        match self.outcome:
            case "dead":
                why = "same reason" if self.is_same_reason else because(self.sqlstate, self.error or "")
                return f"{self.letter_id}: died again: letter {self.event_id}, {why}"
            case "pending":
                return f"{self.letter_id}: pending as event {self.event_id}"
            case "obsolete":
                return f"{self.letter_id}: not needed: its collection has gone or moved since"
        return f"{self.letter_id}: applied as event {self.event_id}"


@dataclass(slots=True)
class Replays:
    """What was replayed, what could not be, and, after a wait, what became of it.

    events: of each letter the event appended, one a collection. closed: letters that were not dead, or are
    not there. outcomes: None unless the caller has waited for the workers.
    """

    events: dict[int, int] = field(default_factory=dict)
    homeless: list[int] = field(default_factory=list)
    closed: list[int] = field(default_factory=list)
    outcomes: Sequence[ReplayedLetter] | None = None

    def events_that(self, outcome: str) -> list[int] | None:
        """Return the ids of the events that this became of; None where nobody waited."""
        if self.outcomes is None:
            return None
        return sorted({one.event_id for one in self.outcomes if one.outcome == outcome})

    @property
    def is_complete(self) -> bool:
        """Whether everything that was asked for was done, as far as is known."""
        return not (self.homeless or self.closed or self.events_that("pending") or self.events_that("dead"))

    def as_json(self) -> dict[str, object]:
        """Return the line that a machine reads."""
        pending = self.events_that("pending")
        return {
            "replayed": len(self.events),
            "events": len(set(self.events.values())),
            "no_collection": self.homeless,
            "not_dead": self.closed,
            "pending": None if pending is None else len(pending),
            "dead_again": self.events_that("dead"),
        }

    def sentences(self) -> list[str]:
        """Return what was done, and what became of it: of each letter where they are few."""
        events = counted(len(set(self.events.values())), "event")
        done = f"Replayed {counted(len(self.events))} with {events}."
        if self.outcomes is None:
            return [f"{done} The workers apply them after users' writes."]
        pending, dead = self.events_that("pending") or [], self.events_that("dead") or []
        if pending:
            said = f"{done} {len(pending):,} of them are still pending: {STALL_HINT}."
        elif dead:
            said = f"{done} {len(dead):,} died again. Fix what the reason names before the next replay."
        else:
            said = f"{done} The workers have settled all of them."
        return [said, *(one.sentence for one in self._told)]

    @property
    def _told(self) -> Sequence[ReplayedLetter]:
        """Return what has a sentence of its own: all where they are few, otherwise those that died again."""
        outcomes = self.outcomes or []
        if len(outcomes) <= MOST_SAID:
            return outcomes
        return [one for one in outcomes if one.outcome == "dead"][:MOST_SAID]


async def replay_all(
    engine: AsyncEngine, pages: AsyncIterator[Sequence[int]], doorbell: Doorbell | None
) -> Replays:
    """Replay page after page of letters, each in a transaction of its own, and ring after each."""
    replays = Replays()
    async for ids in pages:
        async with engine.begin() as connection:
            done = await dead_letters.replay(connection, ids)
        replays.events |= done.replayed
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
    on_stall: Callable[[int], None] | None = None,
    longest_stall_seconds: float = math.inf,
) -> None:
    """Wait until workers have settled the events, or the interrupt, and note what became of them.

    It also waits while PostgreSQL is away. `replays` receives `outcomes`; the other arguments are those of
    `until_settled`.
    """
    letter_ids = {"letter_ids": sorted(replays.events)}

    async def look() -> int:
        async with engine.connect() as connection:
            replays.outcomes = [
                ReplayedLetter(*row) for row in await connection.execute(OUTCOMES, letter_ids)
            ]
        return len(replays.events_that("pending") or [])

    await until_settled(
        look,
        interrupted=interrupted,
        on_stall=on_stall,
        patience=Patience(),
        longest_stall_seconds=longest_stall_seconds,
    )
