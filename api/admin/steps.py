"""Which of the commands that go on the console can carry out itself."""

import re
from collections.abc import Iterable
from types import MappingProxyType
from typing import Literal

from pydantic import BaseModel, Field

from shared.verdict import commands

ActName = Literal[
    "backfill.start",
    "backfill.resume",
    "audit.request",
    "audit.repair",
    "letters.replay",
    "letters.discard",
    "phase.advance",
    "phase.back",
]

ACTS = MappingProxyType[str, ActName](
    {
        commands.BACKFILL: "backfill.start",
        commands.RESUME: "backfill.resume",
        commands.AUDIT: "audit.request",
        commands.REPAIR: "audit.repair",
        commands.ADVANCE: "phase.advance",
        commands.BACK: "phase.back",
    }
)
OF_LETTER: MappingProxyType[str, ActName] = MappingProxyType(
    {"replay": "letters.replay", "discard": "letters.discard"}
)
LETTER = re.compile(rf"{re.escape(commands.LETTERS)} (replay|discard)(?: --\S+)* ([0-9]+)")


class Step(BaseModel):
    """A command that goes on, and the act of the console that does the same."""

    command: str
    act: ActName | None = Field(None, description="null: it is done in a terminal only.")
    letter_id: int | None = Field(None, description="The dead letter that the act is about.")


def steps_of(typed: Iterable[str]) -> list[Step]:
    return [_step(command) for command in typed]


def _step(command: str) -> Step:
    if (letter := LETTER.fullmatch(command)) is not None:
        return Step(command=command, act=OF_LETTER[letter[1]], letter_id=int(letter[2]))
    return Step(command=command, act=ACTS.get(command))
