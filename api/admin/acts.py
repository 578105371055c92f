"""What operators do: each act is recorded in its own transaction, under the name that its caller gave."""

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import datetime
from typing import Annotated

import structlog
from fastapi import Header
from pydantic import AfterValidator, AwareDatetime, BaseModel, ConfigDict, Field
from pydantic.config import JsonDict
from pydantic_core import PydanticCustomError
from sqlalchemy import insert, text
from sqlalchemy.ext.asyncio import AsyncConnection

from api.context import CollectionSync
from api.field_types import Timestamp
from api.gate.identification import identification
from shared.tables.operators import operator_acts

logger = structlog.get_logger(__name__)

LONGEST_NAME = 200
UNNAMED = "unnamed"  # clients from before acts were recorded give no name
MOST_NAMED = 20  # of many letters, in a subject
MOST_LISTED = 200

EXAMPLE: JsonDict = {
    "acted_at": "2025-10-02T10:11:12.345678+00:00",
    "actor": "Ada",
    "act": "backfill.pause",
    "subject": "backfill 3",
    "outcome": "Backfill 3 is paused.",
}

# Served by operator_acts_by_time, read backwards.
NEWEST = text("""
    SELECT acted_at, actor, act, subject, outcome FROM operator_acts
    WHERE acted_at < coalesce(CAST(:before AS timestamptz), 'infinity')
    ORDER BY acted_at DESC LIMIT :most
""")


def _name(header: str) -> str:
    """Return the name: UTF-8, as browsers and curl send it, of 1 to 200 printable characters."""
    try:
        name = header.encode("latin-1").decode().strip()
    except UnicodeError:
        name = ""
    if not 1 <= len(name) <= LONGEST_NAME or not name.isprintable():
        error, message = "name_not_fit", "X-Actor should have 1 to 200 printable characters, in UTF-8"
        raise PydanticCustomError(error, message)
    return name


Actor = Annotated[
    str,
    Header(alias="X-Actor", description="Who acts; recorded with the act, and not proved."),
    AfterValidator(_name),
]


@dataclass(slots=True)
class Act:
    """An act under way. subject: what it is done to, None for the whole; outcome: a sentence on it."""

    connection: AsyncConnection
    subject: str | None = None
    outcome: str = ""


class RecordedAct(BaseModel):
    """An act that an operator carried out over HTTP."""

    model_config = ConfigDict(from_attributes=True, json_schema_extra={"examples": [EXAMPLE]})

    acted_at: Timestamp
    actor: str = Field(description="The name that the caller gave; `unnamed` where it gave none.")
    act: str
    subject: str | None = Field(description="What it was done to; null: the whole.")
    outcome: str


class ActListing(BaseModel):
    """Which acts are meant, the newest first."""

    before: AwareDatetime | None = Field(
        None, description="Only older ones: `acted_at` of the last one seen."
    )
    limit: int = Field(50, ge=1, le=MOST_LISTED)


@asynccontextmanager
async def acting(sync: CollectionSync, actor: str, name: str) -> AsyncIterator[Act]:
    """Lend a transaction to act in; at its end the act is recorded in it and, once committed, logged.

    What raises leaves no trace: nothing was done.
    """
    async with sync.engine.begin() as connection:
        act = Act(connection)
        yield act
        row = {"actor": actor, "act": name, "subject": act.subject, "outcome": act.outcome}
        await connection.execute(insert(operator_acts).values(row))
    logger.info("operator_acted", **row, **identification())


def of_letters(ids: Sequence[int]) -> str:
    """Name the letters as an act's subject, bounded."""
    named = ", ".join(map(str, ids[:MOST_NAMED]))
    return f"dead letters {named}{f' and {len(ids) - MOST_NAMED} more' if len(ids) > MOST_NAMED else ''}"


async def newest(sync: CollectionSync, before: datetime | None, most: int) -> list[RecordedAct]:
    """Return the acts before that moment, the newest first."""
    async with sync.looks.engine.connect() as connection:
        found = await connection.execute(NEWEST, {"before": before, "most": most})
        return [RecordedAct.model_validate(row) for row in found]
