"""What each command says of itself: with examples, and within the width of a terminal."""

import argparse

import pytest

from deploy.docs.commands_page import parsers
from worker.command_line.grammar import seconds, whole

WIDTH = 80
PARSERS = {parser.prog: parser for parser in parsers()}


@pytest.mark.parametrize("name", PARSERS)
def test_each_help_has_examples_and_fits_a_terminal(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", str(WIDTH))
    shown = PARSERS[name].format_help()
    assert f"\nexamples:\n  {name}" in shown
    assert [line for line in shown.splitlines() if len(line) > WIDTH] == []
    variables = [line for line in shown.splitlines() if line.startswith("  DATABASE_")]
    assert all(line[2 + len(line.split()[0]) :].startswith("  ") for line in variables)
    assert "exit status: 0" in shown


@pytest.mark.parametrize("name", PARSERS)
def test_each_example_is_a_command_that_is_understood(name: str) -> None:
    parser = PARSERS[name]
    shown = (parser.epilog or "").split("\n\n")[0].splitlines()[1::2]
    for line in shown:
        words = line.strip().removeprefix(name).split()
        if words[:1] == ["findings"]:
            PARSERS["python -m worker.audit findings"].parse_args(words[1:])
        else:
            parser.parse_args(words)


@pytest.mark.parametrize(
    ("read", "word", "said"),
    [
        (whole(), "abc", "must be a whole number above 0, not 'abc'"),
        (whole(), "9" * 5000, "must be a whole number above 0, not '999"),
        (whole(0), "-1", "must be a whole number of 0 or more, not '-1'"),
        (whole(1, 16), "17", "must be a whole number from 1 to 16, not '17'"),
        (seconds, "soon", "must be a number of seconds, 0 or more, not 'soon'"),
        (seconds, "\x1b", "not '\N{REPLACEMENT CHARACTER}'"),
    ],
)
def test_a_wrong_word_is_answered_in_words(read: object, word: str, said: str) -> None:
    assert callable(read)
    with pytest.raises(argparse.ArgumentTypeError) as refused:
        read(word)
    assert said in str(refused.value)
    assert len(str(refused.value)) < 120
