"""What `python -m worker.status` shows, over HTTP: where the migration stands, and one collection whole."""

from collections.abc import Sequence
from dataclasses import asdict

from pydantic import BaseModel, ConfigDict, Field
from pydantic.config import JsonDict

from api.admin.steps import Step, steps_of
from api.context import CollectionSync
from shared.process.printable import printable
from shared.status import collection, figures
from shared.status.machine import as_json
from shared.status.why import why
from shared.verdict import commands

EXAMPLE: JsonDict = {
    "verdict": "drift",
    "title": "Drift: 3",
    "sentence": "Drift: 3 pairs differ, by the audit of 12:41.",
    "next_steps": [commands.REPAIR],
    "may_go_on": False,
    "steps": [{"command": commands.REPAIR, "act": "audit.repair", "letter_id": None}],
    "figures": [{"name": "live writes", "value": "0 wait"}],
}
EXAMPLE_ONE: JsonDict = {
    "verdict": "in_sync",
    "sentence": "In sync: its home row holds exactly what collections holds.",
    "next_steps": [],
    "may_go_on": True,
    "steps": [],
    "collection_id": "c1111111-0000-4000-8000-000000000001",
}


class Figure(BaseModel):
    """A line that stands below the verdict."""

    name: str
    value: str = Field(description="A dash where it is not known.")


class Verdict(BaseModel):
    """The verdict and what goes on from there, with all that `--json` of the command has beside it."""

    model_config = ConfigDict(extra="allow")

    verdict: str = Field(description="A word.")
    sentence: str
    next_steps: Sequence[str] = Field(description="Commands, in the order in which to type them.")
    may_go_on: bool
    steps: list[Step] = Field(description="The same commands with the act of the console for each.")


class Status(Verdict):
    """Where the migration stands."""

    model_config = ConfigDict(json_schema_extra={"examples": [EXAMPLE]})

    title: str = Field(description="The sentence in a few words.")
    figures: list[Figure] = Field(description="None where PostgreSQL did not answer.")


class OneCollection(Verdict):
    """One collection as every table has it, and why it is as it is."""

    model_config = ConfigDict(json_schema_extra={"examples": [EXAMPLE_ONE]})

    collection_id: str


async def read_status(sync: CollectionSync) -> Status:
    """Look at the database, whatever its state; where it does not answer that is the verdict."""
    said, facts = await sync.looks.look()
    rows = () if facts is None else figures.rows(facts)
    shown = [Figure(name=name, value=printable(value)) for name, value in rows]
    return Status.model_validate(
        as_json(said, facts) | {"steps": steps_of(said.next_steps), "figures": shown}
    )


async def read_collection(sync: CollectionSync, collection_id: str) -> OneCollection:
    found = await collection.read(sync.looks.engine, collection_id)
    said = why(found)
    return OneCollection.model_validate(
        asdict(found)
        | {
            "verdict": said.word,
            "sentence": said.sentence,
            "next_steps": list(said.next_steps),
            "may_go_on": said.is_well,
            "steps": steps_of(said.next_steps),
        }
    )
