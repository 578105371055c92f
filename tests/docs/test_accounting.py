"""The tests of the pages' commands can fail: on pages that are made up."""

import os
from pathlib import Path

import pytest

from tests.docs.ledger import Account, FollowedInTutorial, Runs, RunsElsewhere, faults
from tests.docs.pages import blocks_of, commands_of, fenced_commands
from tests.docs.promises import is_kept, is_kept_somewhere
from tests.docs.reader import Reader
from tests.docs.terminal import terminal

PAGE = """\
# A page

Try `make all`, or `docker compose up`; `make` alone, `python3` and `a.py: run` are no commands.

```
export A=1   # a comment

# another
make run
curl -X POST \\
    -d '{}'; echo
psql -c "SELECT 1 -- '
  FROM t"
```

```text title="First terminal"
output
```

```sh title="Second terminal"
echo "# no comment"
```

```dot
digraph {}
```

```sql
SELECT 1
```
"""
TYPED = [
    "export A=1",
    "make run",
    "curl -X POST \\\n    -d '{}'; echo",
    'psql -c "SELECT 1 -- \'\n  FROM t"',
    'echo "# no comment"',
]


def test_commands_are_read_out_of_blocks_for_a_shell_whole_and_without_comments() -> None:
    assert fenced_commands(PAGE) == TYPED
    assert commands_of(PAGE) == [*TYPED, "make all", "docker compose up"]


def test_blocks_know_their_terminal_their_kind_and_their_line() -> None:
    known = [(block.title, block.is_typed, block.line) for block in blocks_of(PAGE)]
    assert known == [("", True, 5), ("First terminal", False, 16), ("Second terminal", True, 20)]


def test_a_command_that_does_not_end_is_told() -> None:
    with pytest.raises(AssertionError, match=r"line 1: .* does not end"):
        fenced_commands("```\necho 'never\n```\n")


LEDGER: dict[str, Account] = {
    "make all": Runs(),
    "make run": FollowedInTutorial(),
    "make long": RunsElsewhere(by="test_it.py::test_all", why="long"),
    "make ci": RunsElsewhere(by="ci", why="it is this"),
}


@pytest.fixture
def root(tmp_path: Path) -> Path:
    (tmp_path / "test_it.py").write_text("async def test_all(\n")
    (tmp_path / "ci").write_text("set -e\nmake ci\n")
    return tmp_path


def test_an_account_that_is_complete_has_no_fault(root: Path) -> None:
    assert faults(LEDGER, LEDGER, ["make run"], root) == []


def test_a_new_command_is_a_fault_and_so_is_one_that_is_gone(root: Path) -> None:
    asked = ["make all", "make run", "make ci", "make new"]
    assert faults(asked, LEDGER, ["make run"], root) == [
        "neither run nor listed: make new",
        "listed, but no longer on the page: make long",
    ]


def test_what_is_said_to_run_elsewhere_must_be_there(root: Path) -> None:
    (root / "test_it.py").write_text("def test_all_else(\n")
    (root / "ci").write_text("set -e\nmake cider\n")
    assert faults(LEDGER, LEDGER, [], root) == [
        "not in the tutorial: make run",
        "not run by test_it.py::test_all: make long",
        "not run by ci: make ci",
    ]


@pytest.mark.parametrize(
    ("promised", "shown"),
    [
        ("one\ntwo\n", "  one \n\ntwo\n"),
        ("at 10:00:00, 3 ms, http://127.0.0.1:8000\n", "at 23:59:59, 40.5 ms, http://127.0.0.1:20001\n"),
        ("2026-01-02T03:04:05+00:00\n", "2027-10-20T13:14:15.161718+00:00\n"),
        ('{"id":"a",…}\n', '{"id":"a","more":1}\n'),
        ("one\n…\nfour\n", "one\ntwo\nthree\nfour\n"),
        ("one\n…\n", "one\n"),
    ],
)
def test_a_promise_is_kept_where_only_what_varies_or_is_left_out_differs(promised: str, shown: str) -> None:
    assert is_kept(promised, shown)


@pytest.mark.parametrize(
    ("promised", "shown"),
    [
        ("one\n", "one\ntwo\n"),
        ("two\n", "one\ntwo\n"),
        ("one\ntwo\n", "one\n"),
        ("3 rows\n", "4 rows\n"),
        ('{"id":"a",…}\n', '{"id":"b","more":1}\n'),
        ("one\n…\nfour\n", "one\ntwo\nthree\n"),
        ("a.c\n", "abc\n"),
        ("", "anything\n"),
    ],
)
def test_a_promise_is_broken_by_any_other_line(promised: str, shown: str) -> None:
    assert not is_kept(promised, shown)


def test_in_an_output_that_goes_on_a_promise_may_be_kept_anywhere_by_whole_lines() -> None:
    assert is_kept_somewhere("two\n", "one\ntwo\nthree\n")
    assert not is_kept_somewhere("wo\n", "one\ntwo\nthree\n")
    assert not is_kept_somewhere("two\nfour\n", "one\ntwo\nthree\nfour\n")


def follow(page: str, directory: Path) -> None:
    environment = {"PATH": os.environ["PATH"]}
    with terminal(directory, environment) as first, terminal(directory, environment) as second:
        Reader(first, second).follow(blocks_of(page))


def second(commands: str, shown: str = "") -> str:
    """Return a page with one block for the second terminal."""
    return f'```sh title="Second terminal"\n{commands}\n```\n\n```text\n{shown}\n```\n'


BEGUN = """\
```sh title="First terminal"
echo begun; sleep 60
```

```text title="First terminal"
begun
```
"""
INTERRUPTED = """\
```text title="First terminal"
^C
begun
```
"""


def test_a_reader_goes_on_in_the_same_shell_and_interrupts_what_runs_in_the_other(tmp_path: Path) -> None:
    between = second("A=1") + second("echo $A", "1") + second("false\necho $?", "1")
    follow(BEGUN + between + INTERRUPTED, tmp_path)


@pytest.mark.parametrize(
    ("page", "complaint"),
    [
        (second("echo one", "two"), r"(?s)promised:\ntwo\n.*shown:\none\n"),
        (second("echo one"), "shown:\none\n"),
        (second("false"), "line 1: false: 1"),
        (second("nonsense", "…"), "line 1: nonsense: 127"),
        ("```sh\necho one\n```\n", "line 1: which terminal"),
        ('```text title="Second terminal"\none\n```\n', "line 1: output of no command"),
    ],
)
def test_a_reader_complains_of_a_page_that_promises_something_else(
    page: str, complaint: str, tmp_path: Path
) -> None:
    with pytest.raises(AssertionError, match=complaint):
        follow(page, tmp_path)
