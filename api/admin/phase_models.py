"""What administrators ask of the cutover's phase, and what they are answered."""

from collections.abc import Mapping, Sequence
from typing import Annotated, Literal, Self

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, StringConstraints, model_validator
from pydantic.config import JsonDict
from pydantic_core import PydanticCustomError

from api.admin.steps import Step
from api.field_types import Timestamp, storable
from shared.phase.phases import TITLES, Phase
from shared.verdict import commands

LONGEST_REASON = 1000

Reason = Annotated[
    str,
    StringConstraints(strip_whitespace=True, min_length=1, max_length=LONGEST_REASON),
    AfterValidator(storable),
]
Epoch = Annotated[int, Field(ge=0, lt=2**63)]

EXAMPLE_GATE: JsonDict = {
    "name": "audit",
    "title": "Both tables are equal, over all pairs",
    "value": "in sync, 120,000 compared",
    "limit": "in sync, by an audit of the last 5 minutes",
    "is_met": True,
    "age_seconds": 41.5,
    "next_steps": [],
}
EXAMPLE_UNMET: JsonDict = {
    "name": "letters",
    "title": "No dead letter is open",
    "value": "2",
    "limit": "0",
    "is_met": False,
    "next_steps": [f"{commands.LETTERS} list"],
}
EXAMPLE_LOSSES: JsonDict = {
    "counted_at": "2025-10-02T10:11:12.345678+00:00",
    "further_links": 12,
    "tags": 3,
    "mappings": 0,
    "contexts": 1,
    "without_home": 0,
}
EXAMPLE: JsonDict = {
    "phase": "shadow_reads",
    "title": "Shadow reads",
    "titles": {phase.value: title for phase, title in TITLES.items()},
    "following": "reads_moved",
    "previous": "verified",
    "epoch": 3,
    "since": "2025-10-02T10:11:12.345678+00:00",
    "actor": "Ada",
    "falls_back": True,
    "gates": [EXAMPLE_GATE, EXAMPLE_UNMET],
    "next_steps": [f"{commands.LETTERS} list"],
    "steps": [{"command": f"{commands.LETTERS} list", "act": None, "letter_id": None}],
    "shadow": {
        "compared": 5_000,
        "matched": 4_990,
        "mismatched": 0,
        "pending": 9,
        "lettered": 1,
        "dropped": 4,
        "failed": 0,
        "legacy_ms": 0.41,
        "target_ms": 0.44,
        "age_seconds": 0.8,
        "findings": [],
    },
    "losses": EXAMPLE_LOSSES | {"age_seconds": 12.5},
    "turns": [
        {
            "epoch": 3,
            "turned_at": "2025-10-02T10:11:12.345678+00:00",
            "from_phase": "verified",
            "to_phase": "shadow_reads",
            "kind": "advance",
            "actor": "Ada",
            "reason": "The monthly job ran yesterday.",
            "forced": True,
            "unmet": ["It has stayed so for long enough"],
        }
    ],
    "unknown": {},
}
EXAMPLE_ADVANCE: JsonDict = {"epoch": 3}
EXAMPLE_BACK: JsonDict = {"reason": "A report reads the old table only.", "epoch": 4}
EXAMPLE_TURNED: JsonDict = {
    "phase": "reads_moved",
    "from_phase": "shadow_reads",
    "epoch": 4,
    "forced": False,
    "gates": [EXAMPLE_GATE],
    "losses": EXAMPLE_LOSSES,
    "outcome": "Advanced from Shadow reads to Reads moved. Lists are read from project_collections.",
}
EXAMPLE_CONFLICT: JsonDict = {
    "detail": "Not turned to Reads moved. No dead letter is open: 2 (must be: 0).",
    "gates": [EXAMPLE_UNMET],
}


class PhaseGate(BaseModel):
    """What must be true before the phase is advanced."""

    model_config = ConfigDict(from_attributes=True)

    name: str
    title: str
    value: str = Field(description="What was seen.")
    limit: str = Field(description="What it must be.")
    is_met: bool
    age_seconds: float | None = Field(None, description="How old that is; null: it is of now.")
    next_steps: Sequence[str] = Field(description="What to type where it is not met.")


class ShadowFinding(BaseModel):
    """A difference between both sides of a list, which neither an event nor a letter explains."""

    model_config = ConfigDict(from_attributes=True)

    project_id: str
    collection_id: str
    kind: str = Field(description="missing, mismatched or orphaned.")
    found_at: Timestamp


class Comparisons(BaseModel):
    """Lists that were read from both sides in this epoch."""

    model_config = ConfigDict(from_attributes=True)

    compared: int = Field(description="To their end: matched, mismatched, pending or lettered.")
    matched: int
    mismatched: int
    pending: int = Field(description="They differ, and events wait.")
    lettered: int = Field(description="They differ, and an open dead letter is why.")
    dropped: int = Field(description="Sampled, and not compared: the API was busy.")
    failed: int = Field(description="Sampled, and came to no end.")
    legacy_ms: float | None = Field(description="The mean of a read of `collections`; null: none was.")
    target_ms: float | None = Field(description="The mean of a read of `project_collections`.")
    age_seconds: float | None = Field(description="Of the last one.")
    findings: list[ShadowFinding] = Field(description="Of this epoch, the newest first, bounded.")


class GoingBackLosses(BaseModel):
    """What only `project_collections` holds, so that lists lack it once reads go back; rows, by kind."""

    model_config = ConfigDict(from_attributes=True)

    counted_at: Timestamp
    further_links: int
    tags: int
    mappings: int
    contexts: int
    without_home: int


class CountedLosses(GoingBackLosses):
    """The same, as a worker counted it last."""

    age_seconds: float


class PhaseTurn(BaseModel):
    """A turn of the phase."""

    model_config = ConfigDict(from_attributes=True)

    epoch: int = Field(description="The one that it began.")
    turned_at: Timestamp
    from_phase: Phase
    to_phase: Phase
    kind: Literal["advance", "back", "fall_back"]
    actor: str = Field(description="Not proved.")
    reason: str | None = None
    forced: bool = Field(description="Although gates were not met.")
    unmet: list[str] = Field(description="The titles of those gates.")
    losses: GoingBackLosses | None = Field(None, description="As last counted then.")


class CutoverState(BaseModel):
    """Where the cutover is, what is missing for the next phase, and what going back would lose."""

    model_config = ConfigDict(json_schema_extra={"examples": [EXAMPLE]})

    phase: Phase | None = Field(None, description="null: not known.")
    title: str
    titles: Mapping[str, str] = Field(
        {phase.value: title for phase, title in TITLES.items()}, description="Of every phase, in their order."
    )
    following: Phase | None = Field(None, description="Where `advance` leads.")
    previous: Phase | None = Field(None, description="Where `back` leads.")
    epoch: int | None = Field(None, description="One more with each turn.")
    since: Timestamp | None = None
    actor: str | None = Field(None, description="Who turned it last; not proved.")
    falls_back: bool | None = Field(
        None, description="Moved reads go back by themselves when a comparison finds a mismatch."
    )
    gates: Sequence[PhaseGate] = Field((), description="Of the next phase; none in the last.")
    next_steps: Sequence[str] = Field(description="Commands, in the order in which to type them.")
    steps: list[Step] = Field(description="The same commands with the act of the console for each.")
    shadow: Comparisons | None = None
    losses: CountedLosses | None = Field(None, description="null: not counted yet.")
    turns: Sequence[PhaseTurn] = Field((), description="The newest first, bounded.")
    unknown: dict[str, str] = Field(description="What could not be read, and why.")


class GoBack(BaseModel):
    """Go back by one phase. There is no gate."""

    model_config = ConfigDict(extra="forbid", json_schema_extra={"examples": [EXAMPLE_BACK]})

    reason: Reason | None = Field(None, description="Recorded with the turn.")
    epoch: Epoch | None = Field(
        None, description="The one that you saw: where the phase was turned since, it stays as it is."
    )


class Advance(GoBack):
    """Advance by one phase, where its gates are met."""

    model_config = ConfigDict(extra="forbid", json_schema_extra={"examples": [EXAMPLE_ADVANCE]})

    force: bool = Field(default=False, description="Although gates are not met; needs a reason.")
    falls_back: bool | None = Field(
        None,
        description="Whether moved reads go back by themselves on a mismatch; null: as it was.",
    )

    @model_validator(mode="after")
    def _has_reason_to_force(self) -> Self:
        if self.force and self.reason is None:
            error, message = "forced_without_reason", "Forcing needs a reason, which is recorded"
            raise PydanticCustomError(error, message)
        return self


class TurnedPhase(BaseModel):
    """The phase after it was turned."""

    model_config = ConfigDict(json_schema_extra={"examples": [EXAMPLE_TURNED]})

    phase: Phase
    from_phase: Phase
    epoch: int
    forced: bool = Field(description="Gates were not met.")
    gates: list[PhaseGate] = Field(description="As they were in the transaction of the turn.")
    losses: GoingBackLosses | None = Field(description="What going back loses, as last counted.")
    outcome: str = Field(description="What was done, in a sentence.")


class PhaseConflict(BaseModel):
    """Why the phase stays as it is, with every gate that was looked at."""

    model_config = ConfigDict(json_schema_extra={"examples": [EXAMPLE_CONFLICT]})

    detail: str
    gates: list[PhaseGate] = Field(description="None where no gate is why.")
