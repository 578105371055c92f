"""Dead letters as administrators see them over HTTP: without what their events held, which stays in SQL.

PostgreSQL's own words, which may quote it, are shown of one letter at a time.
"""

from dataclasses import asdict
from http import HTTPStatus

import structlog
from sqlalchemy.ext.asyncio import AsyncConnection

from api.admin.acts import acting, of_letters
from api.admin.letter_models import (
    Choice,
    ClosedLetter,
    DeadLetter,
    DeadLetterGroup,
    DeadLetterGroups,
    DeadLetterPage,
    Discarded,
    Listing,
    Replayed,
    WholeDeadLetter,
)
from api.context import CollectionSync
from api.gate.errors import DeadLetterNotFoundError, RefusalError
from api.gate.identification import identification
from shared import dead_letters
from shared.dead_letters import Selection
from shared.letter_groups import find_groups
from shared.verdict.words import count

logger = structlog.get_logger(__name__)

CLOSED = "Dead letter {letter_id} is not dead any more: it is {state}."
HOMELESS = "The collection of dead letter {letter_id} does not exist: there is nothing to replay. Discard it."


class DeadLetterConflictError(RefusalError):
    """The letter cannot be closed as asked."""

    status = HTTPStatus.CONFLICT

    def __init__(self, detail: str) -> None:
        self.detail = detail


async def read_page(sync: CollectionSync, listing: Listing) -> DeadLetterPage:
    selection = listing.selection(None if listing.state == "all" else listing.state)
    async with sync.engine.connect() as connection:
        found = await dead_letters.find(
            connection, selection, after_id=listing.after_id, most=listing.limit + 1
        )
        counts = await dead_letters.count(connection, selection)
    page = [DeadLetter.model_validate(letter) for letter in found[: listing.limit]]
    return DeadLetterPage(
        total=sum(counts.values()),
        counts=counts,
        dead_letters=page,
        next_after_id=page[-1].id if len(found) > listing.limit else None,
    )


async def read_groups(sync: CollectionSync) -> DeadLetterGroups:
    selection = Selection()
    async with sync.looks.engine.connect() as connection:
        groups = await find_groups(connection, selection)
        counts = await dead_letters.count(connection, selection)
    shown = [DeadLetterGroup.model_validate(group) for group in groups]
    return DeadLetterGroups(total=sum(counts.values()), groups=shown)


async def read_one(sync: CollectionSync, letter_id: int) -> WholeDeadLetter:
    """Return the letter; raises DeadLetterNotFoundError when there is none."""
    async with sync.engine.connect() as connection:
        letter = await _read(connection, letter_id)
        said = await dead_letters.said_of(connection, letter_id)
    return WholeDeadLetter.model_validate(letter.model_dump() | asdict(said))


async def replay_one(sync: CollectionSync, actor: str, letter_id: int) -> ClosedLetter:
    """Append the present state of the letter's collection and close the letter.

    Raises:
        DeadLetterNotFoundError: there is none.
        DeadLetterConflictError: it is closed, or its collection does not exist. Nothing was changed.

    """
    async with acting(sync, actor, "letters.replay") as act:
        connection = act.connection
        await _read(connection, letter_id)
        done = await dead_letters.replay(connection, [letter_id])
        if done.homeless:
            raise DeadLetterConflictError(HOMELESS.format(letter_id=letter_id))
        if not done.replayed:
            await _refuse(connection, letter_id)
        after = await _read(connection, letter_id)
        act.subject = of_letters([letter_id])
        act.outcome = f"Dead letter {letter_id} is replayed as event {after.replayed_as}."
    sync.doorbell.press()
    logger.info(
        "dead_letters_replayed", letters=1, no_collection=0, event_ids=[letter_id], **identification()
    )
    return _closed(after, act.outcome)


async def discard_one(sync: CollectionSync, actor: str, letter_id: int) -> ClosedLetter:
    """Close the letter for good.

    Raises:
        DeadLetterNotFoundError: there is none.
        DeadLetterConflictError: it is closed already.

    """
    async with acting(sync, actor, "letters.discard") as act:
        connection = act.connection
        await _read(connection, letter_id)
        done = await dead_letters.discard(connection, [letter_id])
        if not done:
            await _refuse(connection, letter_id)
        after = await _read(connection, letter_id)
        act.subject = of_letters([letter_id])
        act.outcome = f"Dead letter {letter_id} is discarded."
    logger.info("dead_letters_discarded", letters=1, event_ids=[letter_id], **identification())
    return _closed(after, act.outcome)


async def replay_chosen(sync: CollectionSync, actor: str, choice: Choice) -> Replayed:
    """Replay the letters that were chosen, AT_ONCE at most.

    Raises:
        DeadLetterNotFoundError: `like` names none.

    """
    async with acting(sync, actor, "letters.replay") as act:
        connection = act.connection
        done = await dead_letters.replay(connection, await _chosen(connection, choice))
        remaining = await _remaining(connection, choice)
        act.subject = of_letters(sorted(done.replayed))
        act.outcome = _sentence(
            count(len(done.replayed), "dead letter is replayed", "dead letters are replayed"),
            (len(done.homeless), "stays, as its collection is gone", "stay, as their collections are gone"),
            (len(done.closed), "is not open any more", "are not open any more"),
        )
    sync.doorbell.press()
    logger.info(
        "dead_letters_replayed",
        letters=len(done.replayed),
        no_collection=len(done.homeless),
        event_ids=sorted(done.replayed)[: dead_letters.MOST_NAMED],
        **identification(),
    )
    return Replayed(
        outcome=act.outcome,
        replayed=len(done.replayed),
        events=len(set(done.replayed.values())),
        no_collection=list(done.homeless),
        not_dead=list(done.closed),
        remaining=remaining,
    )


async def discard_chosen(sync: CollectionSync, actor: str, choice: Choice) -> Discarded:
    """Discard the letters that were chosen, AT_ONCE at most; raises as a replay of them does."""
    async with acting(sync, actor, "letters.discard") as act:
        connection = act.connection
        ids = await _chosen(connection, choice)
        done = await dead_letters.discard(connection, ids)
        remaining = await _remaining(connection, choice)
        act.subject = of_letters(done)
        act.outcome = _sentence(
            count(len(done), "dead letter is discarded", "dead letters are discarded"),
            (len(ids) - len(done), "is not open any more", "are not open any more"),
        )
    logger.info(
        "dead_letters_discarded",
        letters=len(done),
        event_ids=done[: dead_letters.MOST_NAMED],
        **identification(),
    )
    not_dead = sorted(set(ids) - set(done))
    return Discarded(discarded=len(done), not_dead=not_dead, remaining=remaining, outcome=act.outcome)


def _sentence(done: str, *others: tuple[int, str, str]) -> str:
    """Say what was done, and to how many letters it was not."""
    return f"{'; '.join([done, *(count(*other) for other in others if other[0])])}."


def _closed(letter: DeadLetter, outcome: str) -> ClosedLetter:
    return ClosedLetter.model_validate({**letter.model_dump(), "outcome": outcome})


async def _read(connection: AsyncConnection, letter_id: int) -> DeadLetter:
    found = await dead_letters.find(connection, Selection(state=None, ids=[letter_id]))
    if not found:
        raise DeadLetterNotFoundError
    return DeadLetter.model_validate(found[0])


async def _refuse(connection: AsyncConnection, letter_id: int) -> None:
    """Raise the conflict that names how the letter was closed."""
    state = (await _read(connection, letter_id)).state
    raise DeadLetterConflictError(CLOSED.format(letter_id=letter_id, state=state))


async def _chosen(connection: AsyncConnection, choice: Choice) -> list[int]:
    if choice.ids is not None:
        return sorted(set(choice.ids))
    if choice.like is not None:
        await _read(connection, choice.like)
    return [letter.id for letter in await dead_letters.find(connection, choice.selection())]


async def _remaining(connection: AsyncConnection, choice: Choice) -> int:
    if choice.ids is not None:
        return 0
    return sum((await dead_letters.count(connection, choice.selection())).values())
