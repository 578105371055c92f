"""What the command prints: tables and sentences for people, objects for machines."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

from rich.table import Table
from rich.text import Text

from shared.dead_letters import DeadLetter

HEADINGS = ("id", "died at (UTC)", "state", "collection", "type", "source", "tried", "reason")


def table(letters: Sequence[DeadLetter]) -> Table:
    """Lay out letters, one a line."""
    shown = Table(box=None, pad_edge=False, header_style="bold")
    for heading in HEADINGS:
        shown.add_column(heading, overflow="fold", no_wrap=heading in {"id", "state"})
    for letter in letters:
        died_at = f"{letter.died_at:%Y-%m-%d %H:%M:%S}"
        shown.add_row(
            str(letter.id), died_at, state(letter), Text(letter.collection_id),
            letter.event_type.removeprefix("collection."), letter.source, str(letter.attempts),
            Text(reason(letter)),
        )  # fmt: skip
    return shown


def state(letter: DeadLetter) -> str:
    """Say how the letter stands."""
    return letter.state if letter.replayed_as is None else f"replayed as {letter.replayed_as}"


def reason(letter: DeadLetter) -> str:
    """Say why the event died."""
    return letter.error if letter.sqlstate is None else f"{letter.sqlstate}: {letter.error}"


def details(letter: DeadLetter, payload: object, present: Mapping[str, Any] | None) -> str:
    """Describe one letter whole."""
    if present is None:
        outlook = "The collection does not exist (any more): there is nothing to replay; discard the letter."
    else:
        outlook = f"A replay would append:\n{as_text(present)}"
    return (
        f"Dead letter {letter.id}: {state(letter)}\n"
        f"  collection  {letter.collection_id}\n"
        f"  event       {letter.event_type} from {letter.source}, appended at {letter.created_at}\n"
        f"  died        {letter.died_at}, tried {letter.attempts} times\n"
        f"  reason      {reason(letter)}\n"
        f"  trace       {letter.trace_id or 'none'}\n"
        f"  closed      {letter.closed_at or 'no'}\n"
        f"Its event held:\n{as_text(payload)}\n{outlook}"
    )


def as_text(value: object) -> str:
    """Return indented JSON."""
    return json.dumps(value, indent=2, ensure_ascii=False, default=str)


def as_json(letter: DeadLetter) -> dict[str, object]:
    """Return what a machine reads of a letter."""
    return asdict(letter)


def counted(number: int, what: str = "dead letter") -> str:
    """Return the number with its noun."""
    return f"{number:,} {what}{'' if number == 1 else 's'}"
