"""Dead letters as administrators see them over HTTP: without what their events held, which stays in SQL."""

from http import HTTPStatus
from typing import Annotated, Literal, Self

import structlog
from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, model_validator
from pydantic.config import JsonDict
from sqlalchemy.ext.asyncio import AsyncConnection

from api.context import CollectionSync
from api.field_types import Text, Timestamp
from api.gate.errors import DeadLetterNotFoundError, RefusalError
from shared import dead_letters
from shared.dead_letters import AT_ONCE, Selection
from shared.events import Source

logger = structlog.get_logger(__name__)

MOST_LISTED = 100

LetterState = Literal["dead", "superseded", "replayed", "discarded"]
LetterId = Annotated[int, Field(ge=1, lt=2**63)]

EXAMPLE: JsonDict = {
    "id": 4711,
    "collection_id": "c1111111-0000-4000-8000-000000000001",
    "event_type": "collection.updated",
    "source": "api",
    "created_at": "2025-10-02T10:11:12.345678+00:00",
    "died_at": "2025-10-02T10:11:12.456789+00:00",
    "sqlstate": "23514",
    "error": "check violation, table project_collections, constraint no_rumours",
    "attempts": 1,
    "state": "replayed",
    "closed_at": "2025-10-02T11:00:00+00:00",
    "replayed_as": 4812,
    "trace_id": "0af7651916cd43dd8448eb211c80319c",
}
EXAMPLE_PAGE: JsonDict = {
    "total": 250,
    "counts": {"replayed": 250},
    "dead_letters": [EXAMPLE],
    "next_after_id": 4711,
}
EXAMPLE_CHOICE: JsonDict = {"all": True, "sqlstate": "23514"}
EXAMPLE_REPLAY: JsonDict = {
    "replayed": 1,
    "events": 1,
    "no_collection": [],
    "not_dead": [],
    "remaining": 0,
}
EXAMPLE_DISCARD: JsonDict = {"discarded": 1, "not_dead": [], "remaining": 0}

CLOSED = "Dead letter {letter_id} is not dead any more: it is {state}."
HOMELESS = "The collection of dead letter {letter_id} does not exist: there is nothing to replay. Discard it."


class Filters(BaseModel):
    """Which letters are meant: all that fulfil every condition that is given."""

    collection_id: Text | None = None
    project_id: Text | None = Field(None, description="The home project that the collection has now.")
    sqlstate: Text | None = Field(None, description="The error of PostgreSQL that it died of.")
    source: Source | None = Field(None, description="Who appended the event.")
    since: AwareDatetime | None = Field(None, description="It died then or later.")
    until: AwareDatetime | None = Field(None, description="It died before then.")

    def selection(self, state: str | None = "dead") -> Selection:
        return Selection(
            state=state,
            collection_id=self.collection_id,
            project_id=self.project_id,
            sqlstate=self.sqlstate,
            source=self.source,
            since=self.since,
            until=self.until,
        )


class Listing(Filters):
    """A page of letters, oldest first."""

    state: LetterState | Literal["all"] = "dead"
    after_id: int = Field(0, ge=0, lt=2**63, description="Begin after this letter: `next_after_id`.")
    limit: int = Field(MOST_LISTED, ge=1, le=AT_ONCE)


class Choice(Filters):
    """The letters to close: by their ids, or all dead ones, or those of them that fulfil the conditions."""

    model_config = ConfigDict(extra="forbid", json_schema_extra={"examples": [EXAMPLE_CHOICE]})

    ids: list[LetterId] | None = Field(None, min_length=1, max_length=AT_ONCE)
    all: Literal[True] | None = Field(None, description=f"{AT_ONCE} at most in one request: see `remaining`.")

    @model_validator(mode="after")
    def names_letters_in_one_way(self) -> Self:
        """Refuse ids beside conditions, and a request that names no letters at all."""
        if self.ids is not None and self.model_fields_set != {"ids"}:
            msg = "ids stand alone: conditions narrow down all"
            raise ValueError(msg)
        if self.ids is None and not self.all:
            msg = "give ids, or all: true"
            raise ValueError(msg)
        return self


class DeadLetter(BaseModel):
    """An event that could not be applied, and what has become of it."""

    model_config = ConfigDict(from_attributes=True, json_schema_extra={"examples": [EXAMPLE]})

    id: int = Field(description="The event's own id.")
    collection_id: str
    event_type: str
    source: str
    created_at: Timestamp = Field(description="When the event was appended.")
    died_at: Timestamp
    sqlstate: str | None = Field(description="PostgreSQL's error; null when the event was malformed.")
    error: str = Field(description="Why; it holds names out of the schema, never a user's values.")
    attempts: int
    state: LetterState = Field(description="superseded: a newer event of the collection was applied since.")
    closed_at: Timestamp | None
    replayed_as: int | None = Field(description="The event that took its place.")
    trace_id: str | None = Field(description="The trace of the request that appended the event.")


class DeadLetterPage(BaseModel):
    """Letters, oldest first, and how many fulfil the conditions."""

    model_config = ConfigDict(json_schema_extra={"examples": [EXAMPLE_PAGE]})

    total: int
    counts: dict[str, int] = Field(description="By state.")
    dead_letters: list[DeadLetter]
    next_after_id: int | None = Field(description="Ask for the next page with it; null: this is the last.")


class Replayed(BaseModel):
    """What a replay did."""

    model_config = ConfigDict(json_schema_extra={"examples": [EXAMPLE_REPLAY]})

    replayed: int
    events: int = Field(description="Appended: one for each collection.")
    no_collection: list[int] = Field(description="These stay: their collections do not exist. Discard them.")
    not_dead: list[int] = Field(description="Closed before, or there is no such letter.")
    remaining: int = Field(description="Dead letters that fulfil the conditions still. Ask again.")


class Discarded(BaseModel):
    """What was discarded."""

    model_config = ConfigDict(json_schema_extra={"examples": [EXAMPLE_DISCARD]})

    discarded: int
    not_dead: list[int] = Field(description="Closed before, or there is no such letter.")
    remaining: int = Field(description="Dead letters that fulfil the conditions still. Ask again.")


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


async def read_one(sync: CollectionSync, letter_id: int) -> DeadLetter:
    """Return the letter; raises DeadLetterNotFoundError when there is none."""
    async with sync.engine.connect() as connection:
        return await _read(connection, letter_id)


async def replay_one(sync: CollectionSync, letter_id: int) -> DeadLetter:
    """Append the present state of the letter's collection and close the letter.

    Raises:
        DeadLetterNotFoundError: there is none.
        DeadLetterConflictError: it is closed, or its collection does not exist. Nothing was changed.

    """
    async with sync.engine.begin() as connection:
        await _read(connection, letter_id)
        done = await dead_letters.replay(connection, [letter_id])
        if done.homeless:
            raise DeadLetterConflictError(HOMELESS.format(letter_id=letter_id))
        if not done.replayed:
            await _refuse(connection, letter_id)
        after = await _read(connection, letter_id)
    sync.doorbell.press()
    logger.info("dead_letters_replayed", letters=1, no_collection=0, event_ids=[letter_id])
    return after


async def discard_one(sync: CollectionSync, letter_id: int) -> DeadLetter:
    """Close the letter for good.

    Raises:
        DeadLetterNotFoundError: there is none.
        DeadLetterConflictError: it is closed already.

    """
    async with sync.engine.begin() as connection:
        await _read(connection, letter_id)
        done = await dead_letters.discard(connection, [letter_id])
        if not done:
            await _refuse(connection, letter_id)
        after = await _read(connection, letter_id)
    logger.info("dead_letters_discarded", letters=1, event_ids=[letter_id])
    return after


async def replay_chosen(sync: CollectionSync, choice: Choice) -> Replayed:
    async with sync.engine.begin() as connection:
        done = await dead_letters.replay(connection, await _chosen(connection, choice))
        remaining = await _remaining(connection, choice)
    sync.doorbell.press()
    logger.info(
        "dead_letters_replayed",
        letters=len(done.replayed),
        no_collection=len(done.homeless),
        event_ids=sorted(done.replayed)[: dead_letters.MOST_NAMED],
    )
    return Replayed(
        replayed=len(done.replayed),
        events=len(set(done.replayed.values())),
        no_collection=list(done.homeless),
        not_dead=list(done.closed),
        remaining=remaining,
    )


async def discard_chosen(sync: CollectionSync, choice: Choice) -> Discarded:
    """Discard the letters that were chosen, AT_ONCE at most."""
    async with sync.engine.begin() as connection:
        ids = await _chosen(connection, choice)
        done = await dead_letters.discard(connection, ids)
        remaining = await _remaining(connection, choice)
    logger.info("dead_letters_discarded", letters=len(done), event_ids=done[: dead_letters.MOST_NAMED])
    return Discarded(discarded=len(done), not_dead=sorted(set(ids) - set(done)), remaining=remaining)


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
    return [letter.id for letter in await dead_letters.find(connection, choice.selection())]


async def _remaining(connection: AsyncConnection, choice: Choice) -> int:
    if choice.ids is not None:
        return 0
    return sum((await dead_letters.count(connection, choice.selection())).values())
