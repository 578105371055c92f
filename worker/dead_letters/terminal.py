"""What the command prints: tables and sentences for people, objects for machines."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

from rich.text import Text

from shared.dead_letters import DeadLetter
from worker.command_line.columns import aligned
from worker.command_line.console import cell
from worker.command_line.verdict import tone

HEADINGS = ("id", "died at (UTC)", "state", "collection", "type", "source", "tried", "reason")


def table(letters: Sequence[DeadLetter]) -> list[Text]:
    """Lay out letters, one a line; none is to be wrapped."""
    return aligned(HEADINGS, [_columns(letter) for letter in letters])


def _columns(letter: DeadLetter) -> list[Text]:
    return [
        cell(str(letter.id)),
        cell(f"{letter.died_at:%Y-%m-%d %H:%M:%S}"),
        cell(state(letter), tone(letter.state)),
        cell(letter.collection_id),
        cell(letter.event_type.removeprefix("collection.")),
        cell(letter.source),
        cell(str(letter.attempts)),
        cell(reason(letter)),
    ]


def state(letter: DeadLetter) -> str:
    """Return the letter's state, with the event that replaced it."""
    return letter.state if letter.replayed_as is None else f"replayed as {letter.replayed_as}"


def reason(letter: DeadLetter) -> str:
    """Return why the event died."""
    return letter.error if letter.sqlstate is None else f"{letter.sqlstate}: {letter.error}"


def details(letter: DeadLetter, payload: object, present: Mapping[str, Any] | None) -> list[str]:
    """Return everything about one letter, line by line."""
    if present is None:
        gone = "The collection does not exist (any more): there is nothing to replay; discard the letter."
        outlook = [gone]
    else:
        outlook = ["A replay would append:", *as_text(present)]
    return [
        f"Dead letter {letter.id}: {state(letter)}",
        f"  collection  {letter.collection_id}",
        f"  event       {letter.event_type} from {letter.source}, appended at {letter.created_at}",
        f"  died        {letter.died_at}, tried {letter.attempts} times",
        f"  reason      {reason(letter)}",
        f"  trace       {letter.trace_id or 'none'}",
        f"  closed      {letter.closed_at or 'no'}",
        "Its event held:",
        *as_text(payload),
        *outlook,
    ]


def as_text(value: object) -> list[str]:
    """Return the lines of indented JSON; a line end within a text is written as JSON has it."""
    return json.dumps(value, indent=2, ensure_ascii=False, default=str).split("\n")


def as_json(letter: DeadLetter) -> dict[str, object]:
    """Return the letter as --json has it."""
    return asdict(letter)


def counted(number: int, what: str = "dead letter") -> str:
    """Return the number with its noun."""
    return f"{number:,} {what}{'' if number == 1 else 's'}"
