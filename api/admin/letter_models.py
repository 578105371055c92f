"""What administrators ask of dead letters, and what they are answered."""

from typing import Annotated, Literal, Self

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, model_validator
from pydantic.config import JsonDict

from api.field_types import Text, Timestamp
from shared.dead_letters import AT_ONCE, Selection
from shared.events import Source

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
    "replay_of": 4702,
}
EXAMPLE_WHOLE: JsonDict = EXAMPLE | {
    "message": 'new row for relation "project_collections" violates check constraint "no_rumours"',
    "detail": "Failing row contains (7, c1111111-0000-4000-8000-000000000001, …).",
    "hint": "Rumours belong into comments.",
}
EXAMPLE_GROUPS: JsonDict = {
    "total": 12,
    "groups": [
        {
            "like": 4711,
            "sqlstate": "23514",
            "error": "check violation, table project_collections, constraint no_rumours",
            "event_type": "collection.updated",
            "letters": 12,
            "died_again": 2,
            "oldest_at": "2025-10-02T10:11:12.456789+00:00",
            "newest_at": "2025-10-02T10:14:01.2+00:00",
        }
    ],
}
EXAMPLE_PAGE: JsonDict = {
    "total": 250,
    "counts": {"replayed": 250},
    "dead_letters": [EXAMPLE],
    "next_after_id": 4711,
}
EXAMPLE_CHOICE: JsonDict = {"like": 4711}
EXAMPLE_REPLAY: JsonDict = {
    "replayed": 1,
    "events": 1,
    "no_collection": [],
    "not_dead": [],
    "remaining": 0,
    "outcome": "1 dead letter is replayed.",
}
EXAMPLE_DISCARD: JsonDict = {
    "discarded": 1,
    "not_dead": [],
    "remaining": 0,
    "outcome": "1 dead letter is discarded.",
}
EXAMPLE_OUTCOME = "Dead letter 4711 is replayed as event 4812."
OUTCOME = Field(description="What was done, in a sentence.")


class Filters(BaseModel):
    """Which letters are meant: all that fulfil every condition that is given."""

    collection_id: Text | None = None
    project_id: Text | None = Field(None, description="The home project that the collection has now.")
    sqlstate: Text | None = Field(None, description="The error of PostgreSQL that it died of.")
    source: Source | None = Field(None, description="Who appended the event.")
    since: AwareDatetime | None = Field(None, description="It died then or later.")
    until: AwareDatetime | None = Field(None, description="It died before then.")
    like: LetterId | None = Field(
        None,
        description="It died like this letter: of the same error, for the same reason, as such an event.",
    )

    def selection(self, state: str | None = "dead") -> Selection:
        return Selection(
            state=state,
            collection_id=self.collection_id,
            project_id=self.project_id,
            sqlstate=self.sqlstate,
            source=self.source,
            since=self.since,
            until=self.until,
            like=self.like,
        )


class Listing(Filters):
    """A page of letters, oldest first."""

    state: LetterState | Literal["all"] = "dead"
    after_id: int = Field(0, ge=0, lt=2**63, description="Begin after this letter: `next_after_id`.")
    limit: int = Field(MOST_LISTED, ge=1, le=AT_ONCE)


class Choice(Filters):
    """The letters to close: by their ids, or all dead ones, or those of them that fulfil the conditions.

    `like` alone chooses as well: the letters that died like that one.
    """

    model_config = ConfigDict(extra="forbid", json_schema_extra={"examples": [EXAMPLE_CHOICE]})

    ids: list[LetterId] | None = Field(None, min_length=1, max_length=AT_ONCE)
    all: Literal[True] | None = Field(None, description=f"{AT_ONCE} at most in one request: see `remaining`.")

    @model_validator(mode="after")
    def names_letters_in_one_way(self) -> Self:
        """Refuse ids beside conditions, and a request that names no letters at all."""
        if self.ids is not None and self.model_fields_set != {"ids"}:
            msg = "ids stand alone: conditions narrow down all, or like"
            raise ValueError(msg)
        if self.ids is None and not self.all and self.like is None:
            msg = "give ids, or like, or all: true"
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
    state: LetterState = Field(
        description="superseded: a newer event of the collection was applied, or died."
    )
    closed_at: Timestamp | None
    replayed_as: int | None = Field(description="The event that took its place.")
    trace_id: str | None = Field(description="The trace of the request that appended the event.")
    replay_of: int | None = Field(
        description="The letter that was replayed as this event, which died again; null: none that is kept."
    )


class ClosedLetter(DeadLetter):
    """The letter after it was closed."""

    model_config = ConfigDict(json_schema_extra={"examples": [EXAMPLE | {"outcome": EXAMPLE_OUTCOME}]})

    outcome: str = OUTCOME


class WholeDeadLetter(DeadLetter):
    """A letter with PostgreSQL's own words, each cut to 2,000 characters. They may quote what users wrote."""

    model_config = ConfigDict(from_attributes=True, json_schema_extra={"examples": [EXAMPLE_WHOLE]})

    message: str | None
    detail: str | None
    hint: str | None


class DeadLetterGroup(BaseModel):
    """Letters that died alike: of the same error, for the same reason, as events of the same type."""

    model_config = ConfigDict(from_attributes=True)

    like: int = Field(description="The first of them, by which the group is chosen.")
    sqlstate: str | None
    error: str
    event_type: str
    letters: int = Field(description="How many there are.")
    died_again: int = Field(description="Of those, the events that had replayed another letter.")
    oldest_at: Timestamp = Field(description="When the first of them died.")
    newest_at: Timestamp


class DeadLetterGroups(BaseModel):
    """Open letters by what they died of: the largest groups, a hundred at most."""

    model_config = ConfigDict(json_schema_extra={"examples": [EXAMPLE_GROUPS]})

    total: int = Field(description="Open letters, of all groups.")
    groups: list[DeadLetterGroup]


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
    outcome: str = OUTCOME


class Discarded(BaseModel):
    """What was discarded."""

    model_config = ConfigDict(json_schema_extra={"examples": [EXAMPLE_DISCARD]})

    discarded: int
    not_dead: list[int] = Field(description="Closed before, or there is no such letter.")
    remaining: int = Field(description="Dead letters that fulfil the conditions still. Ask again.")
    outcome: str = OUTCOME
