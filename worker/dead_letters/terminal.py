"""What the command prints: tables and sentences for people, objects for machines."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from datetime import datetime
from typing import Any

from rich.text import Text

from shared.dead_letters import DeadLetter
from shared.letter_groups import LetterGroup
from shared.postgres.faults import Said
from shared.verdict.commands import LETTERS
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
    """Return why the event died, and of which replay, where it was one."""
    again = "" if letter.replay_of is None else f"; died again after a replay of {letter.replay_of}"
    return because(letter.sqlstate, letter.error) + again


def because(sqlstate: str | None, error: str) -> str:
    """Return PostgreSQL's code, where there is one, and the reason."""
    return error if sqlstate is None else f"{sqlstate}: {error}"


def details(letter: DeadLetter, said: Said, payload: object, present: Mapping[str, Any] | None) -> list[str]:
    """Return everything about one letter, line by line."""
    tried = "once" if letter.attempts == 1 else f"{letter.attempts} times"
    return [
        f"Dead letter {letter.id}: {state(letter)}",
        f"  collection  {letter.collection_id}",
        f"  event       {letter.event_type} from {letter.source}, appended at {_time(letter.created_at)}",
        f"  died        {_time(letter.died_at)}, tried {tried}",
        f"  reason      {reason(letter)}",
        *_words(said),
        f"  trace       {letter.trace_id or 'none'}",
        f"  closed      {_time(letter.closed_at) if letter.closed_at else 'no'}",
        "Its event held:",
        *as_text(payload),
        *_outlook(letter, present),
    ]


def _words(said: Said) -> list[str]:
    """Return PostgreSQL's own words, each text of several lines as it was written."""
    return [
        f"  {'' if number else name:10}  {line}"
        for name, words in asdict(said).items()
        if words
        for number, line in enumerate(words.split("\n"))
    ]


def _outlook(letter: DeadLetter, present: Mapping[str, Any] | None) -> list[str]:
    if letter.closed_at is not None:
        return []
    if present is None:
        return ["The collection does not exist (any more): there is nothing to replay; discard the letter."]
    return ["A replay would append:", *as_text(present)]


def _time(time: datetime) -> str:
    return time.isoformat()


def group_lines(group: LetterGroup) -> list[str]:
    """Return a group of letters: how many and of which type, since when, why, and how to replay it."""
    again = f", {group.died_again:,} of them after a replay" if group.died_again else ""
    span = f"{group.oldest_at:%Y-%m-%d %H:%M:%S} to {group.newest_at:%Y-%m-%d %H:%M:%S} UTC"
    return [
        f"{counted(group.letters, 'letter')} of {group.event_type}{again}; died {span}",
        f"  {because(group.sqlstate, group.error)}",
        f"  {LETTERS} replay --like {group.like}",
    ]


def no_such_letter(ids: Sequence[int]) -> str:
    """Return the sentence on ids that no letter has."""
    return f"There is no dead letter {listed(ids)}."


def listed(ids: Sequence[int], most: int = 20) -> str:
    """Enumerate ids, of more than `most` the first ones."""
    more = f" and {len(ids) - most} more" if len(ids) > most else ""
    return ", ".join(map(str, ids[:most])) + more


def as_text(value: object) -> list[str]:
    """Return the lines of indented JSON; a line end within a text is written as JSON has it."""
    return json.dumps(value, indent=2, ensure_ascii=False, default=str).split("\n")


def as_json(letter: DeadLetter) -> dict[str, object]:
    """Return the letter as --json has it."""
    return asdict(letter)


def counted(number: int, what: str = "dead letter") -> str:
    """Return the number with its noun."""
    return f"{number:,} {what}{'' if number == 1 else 's'}"
