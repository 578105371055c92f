"""The tests of the pages' commands can fail: on pages that are made up."""

import os
from pathlib import Path

import pytest

from tests.docs.ledger import Account, Runs, RunsElsewhere, faults
from tests.docs.pages import blocks_of, commands_of, fenced_commands
from tests.docs.promises import is_kept
from tests.docs.reader import Reader
from tests.docs.terminal import terminal

PAGE = """\
Try `make all`; `make` alone and `a.py: run` are no commands.

```
export A=1   # a comment
curl -X POST \\
    -d '{}'; echo
```

```text title="First terminal"
output
```

```sql
SELECT 1
```
"""


def test_commands_are_read_out_of_blocks_for_a_shell_whole_and_without_comments() -> None:
    typed = ["export A=1", "curl -X POST \\\n    -d '{}'; echo"]
    assert fenced_commands(PAGE) == typed
    assert commands_of(PAGE) == [*typed, "make all"]


def test_a_command_that_is_new_gone_or_not_where_it_is_said_to_run_is_a_fault(tmp_path: Path) -> None:
    (tmp_path / "test_it.py").write_text("def test_all_else(\n")
    ledger: dict[str, Account] = {
        "make all": Runs(),
        "make long": RunsElsewhere(by="test_it.py::test_all", why="long"),
    }
    assert faults(["make all", "make new"], ledger, [], tmp_path) == [
        "neither run nor listed: make new",
        "listed, but no longer on the page: make long",
        "not run by test_it.py::test_all: make long",
    ]


@pytest.mark.parametrize(
    ("promised", "shown", "kept"),
    [
        ("one\ntwo\n", "  one \n\ntwo\n", True),
        ("at 10:00:00, 3 ms, 127.0.0.1:8000\n", "at 23:59:59, 40.5 ms, 127.0.0.1:20001\n", True),
        ("one\n…\nfour\n", "one\ntwo\nthree\nfour\n", True),
        ("one\n", "one\ntwo\n", False),
        ("one\ntwo\n", "one\n", False),
        ("3 rows\n", "4 rows\n", False),
        ("", "anything\n", False),
    ],
)
def test_a_promise_is_kept_where_only_what_varies_or_is_left_out_differs(
    promised: str, shown: str, *, kept: bool
) -> None:
    assert is_kept(promised, shown) is kept


@pytest.mark.parametrize(
    ("typed", "promised", "complaint"),
    [("echo one", "two", "shown:\none\n"), ("false", "", "line 1: false: 1")],
)
def test_a_reader_complains_of_a_page_that_promises_something_else(
    typed: str, promised: str, complaint: str, tmp_path: Path
) -> None:
    page = f'```sh title="Second terminal"\n{typed}\n```\n\n```text\n{promised}\n```\n'
    environment = {"PATH": os.environ["PATH"]}
    with (
        terminal(tmp_path, environment) as first,
        terminal(tmp_path, environment) as second,
        pytest.raises(AssertionError, match=complaint),
    ):
        Reader(first, second).follow(blocks_of(page))
