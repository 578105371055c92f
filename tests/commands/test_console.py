"""What a terminal shows of data is letters, whatever the data: no markup, nothing that steers it."""

import ast
import io
import json
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
from rich.table import Table

from shared.dead_letters import DeadLetter
from shared.letter_groups import LetterGroup
from shared.logs.setup import encode
from shared.pair import COLUMNS
from shared.postgres.faults import Said
from shared.process.printable import printable
from tests.commands.world import HOSTILE
from worker.audit import listing
from worker.audit import terminal as audit
from worker.audit.findings import Finding
from worker.backfill.terminal import watching
from worker.command_line.console import LONGEST_LINE, Harmless, cell
from worker.dead_letters import terminal as dead_letters

ROOT = Path(__file__).parents[2]
NOW = datetime(2026, 1, 1, tzinfo=UTC)
SIDE = dict.fromkeys(COLUMNS, HOSTILE)


def run(**values: object) -> Any:  # noqa: ANN401 - a row with as much as is shown
    counts = ("compared", "planned", "active_collections", "home_rows", "missing", "mismatched", "orphaned",
              "pending", "repaired", "found", "processed", "enqueued", "id", "duration_seconds")  # fmt: skip
    return SimpleNamespace(**dict.fromkeys(counts, 3), repair=True, **values)


def letter() -> DeadLetter:
    return cast(
        "DeadLetter",
        SimpleNamespace(
            id=1, died_at=NOW, created_at=NOW, closed_at=None, state=HOSTILE, replayed_as=None, attempts=1,
            collection_id=HOSTILE, event_type=f"collection.{HOSTILE}", source=HOSTILE, error=HOSTILE,
            sqlstate=HOSTILE, trace_id=HOSTILE, replay_of=7,
        ),
    )  # fmt: skip


def finding() -> Finding:
    return cast(
        "Finding",
        SimpleNamespace(
            kind=HOSTILE, outcome=HOSTILE, collection_id=HOSTILE, project_id=HOSTILE, target=SIDE,
            legacy=SIDE, differs=list(COLUMNS[:1]), dead_letter=7, writer=HOSTILE,
        ),
    )  # fmt: skip


def naive(console: Harmless) -> None:
    """Print as one would who knows of no danger."""
    table = Table(HOSTILE, title=HOSTILE, caption=HOSTILE)
    table.add_row(HOSTILE)
    console.print(table)
    console.print(HOSTILE, style="bold")


def draw(console: Harmless) -> None:
    with watching(console) as watch:
        watch(run(throttled_by=HOSTILE, status="running"))


SHOWN: dict[str, Callable[[Harmless], object]] = {
    "a sentence": lambda console: console.say(HOSTILE),
    "what somebody printed without a thought": naive,
    "a backfill's bar": draw,
    "letters": lambda console: console.print(*dead_letters.table([letter()]), sep="\n", soft_wrap=True),
    "a letter": lambda console: console.say(
        *dead_letters.details(letter(), Said(HOSTILE, HOSTILE, HOSTILE), {HOSTILE: HOSTILE}, None)
    ),
    "a group of letters": lambda console: console.say(
        *dead_letters.group_lines(LetterGroup(7, HOSTILE, HOSTILE, HOSTILE, 2, 1, NOW, NOW))
    ),
    "an audit": lambda console: console.say(audit.sentence(run(verdict=None, error=HOSTILE))),
    "findings": lambda console: console.print(*listing.diff([finding()]), sep="\n", soft_wrap=True),
}


@pytest.fixture
def console(monkeypatch: pytest.MonkeyPatch) -> Harmless:
    """A terminal without colours, so that every escape in it is the data's."""
    for name, value in {"FORCE_COLOR": "1", "TERM": "dumb", "COLUMNS": "120"}.items():
        monkeypatch.setenv(name, value)
    console = Harmless()
    console.file = io.StringIO()
    return console


@pytest.mark.parametrize("what", SHOWN)
def test_nothing_that_is_shown_of_data_is_obeyed(console: Harmless, what: str) -> None:
    SHOWN[what](console)
    text = cast("io.StringIO", console.file).getvalue()
    assert console.is_terminal
    assert "日本" in text
    assert "[/b][bold]" in "".join(text.split())
    assert {letter for letter in text if not letter.isprintable()} <= {"\n"}


def test_each_text_is_one_line_of_bounded_length(console: Harmless) -> None:
    console.say("a\nb", "c\u2028d", "e" * 2 * LONGEST_LINE)
    first, second, third = cast("io.StringIO", console.file).getvalue().splitlines()
    assert (first, second) == ("a\N{REPLACEMENT CHARACTER}b", "c\N{REPLACEMENT CHARACTER}d")
    assert (len(third), third[-1]) == (LONGEST_LINE, "…")
    assert len(cell("x" * 10_000).plain) == 500


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("Ordnung, 秩序 🙂", "Ordnung, 秩序 🙂"),
        ("a\u00a0b\u3000c\td", "a b c d"),
        ("\x00\x1b\x7f\x85\x9b", "\N{REPLACEMENT CHARACTER}" * 5),
        ("\u200e\u202e\u2066\u2028\u2029\ufeff\ud800", "\N{REPLACEMENT CHARACTER}" * 7),
        ("[red]", "[red]"),
    ],
)
def test_letters_stay_and_what_has_no_shape_is_replaced(text: str, shown: str) -> None:
    assert printable(text) == shown
    assert printable(text * 100, 50) == (shown * 100)[:49] + "…"


def test_a_log_line_at_a_terminal_is_letters_and_says_the_same() -> None:
    line = encode({HOSTILE: [HOSTILE, "\U000e0001\ud800"]})
    assert line.isprintable()
    assert json.loads(line) == {HOSTILE: [HOSTILE, "\U000e0001\ud800"]}


def calls(path: Path) -> Iterator[tuple[str, ast.Call]]:
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Call):
            yield ast.unparse(node.func), node


# What prints without `worker.command_line.console`, and why it may.
EXCEPTIONS = {
    ("command_line/writing.py", "sys.stdout.buffer.write"),  # the page, for a browser
    ("check.py", "print"),  # our own words
}


def is_a_way_out(name: str, call: ast.Call) -> bool:
    """Return whether text may come to a terminal by this call, as markup or past the commands' console."""
    marks = [word.value for word in call.keywords if word.arg in {"markup", "emoji"}]
    return (
        name in {"Console", "print"}
        or (name.startswith(("sys.stdout.", "sys.stderr.")) and name.endswith(".write"))
        or name.endswith("from_markup")
        or any(not (isinstance(mark, ast.Constant) and mark.value is False) for mark in marks)
    )


def test_whatever_prints_does_so_where_nothing_is_obeyed() -> None:
    found = {
        (path.relative_to(ROOT / "worker").as_posix(), name)
        for path in (ROOT / "worker").rglob("*.py")
        for name, call in calls(path)
        if is_a_way_out(name, call)
    }
    assert found == EXCEPTIONS
