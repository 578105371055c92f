"""The pages that are made from the code say what it does."""

import argparse
import re
import sys
from pathlib import Path

import pytest

from deploy.docs.__main__ import COMMAND, DIRECTORY, PAGES, main, outdated
from deploy.docs.commands_page import meaning, parsers, usage, written
from deploy.docs.settings_page import READERS
from shared.settings import Settings
from tests.forked import ROOT

PAGE = {name: (DIRECTORY / name).read_text(encoding="utf-8") for name in PAGES}


def test_the_pages_are_what_the_code_makes() -> None:
    assert not outdated(), f"{', '.join(path.name for path in outdated())}: make them anew with `{COMMAND}`"


def test_a_page_that_was_changed_by_hand_is_found_and_the_command_named(tmp_path: Path) -> None:
    (tmp_path / "reference").mkdir()
    for name, text in PAGE.items():
        (tmp_path / name).write_text(text, encoding="utf-8")
    assert outdated(tmp_path) == {}
    changed = tmp_path / "reference/settings.md"
    changed.write_text(PAGE["reference/settings.md"].replace("required", "optional", 1), encoding="utf-8")
    (tmp_path / "reference/http.md").unlink()
    assert outdated(tmp_path) == {
        changed: PAGE["reference/settings.md"],
        tmp_path / "reference/http.md": PAGE["reference/http.md"],
    }


def test_the_check_of_the_command_says_what_is_out_of_date_and_changes_nothing(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "argv", [COMMAND, "--check"])
    assert (main(), capsys.readouterr().out) == (0, "")
    monkeypatch.setitem(PAGES, "reference/settings.md", lambda: "# Another\n")
    assert main() == 1
    assert (
        capsys.readouterr().out == f"docs/reference/settings.md is out of date\nMake them anew: {COMMAND}\n"
    )
    assert (DIRECTORY / "reference/settings.md").read_text(encoding="utf-8") == PAGE["reference/settings.md"]


def test_each_process_reads_the_settings_that_the_page_says_it_reads() -> None:
    """The API's code uses none of the settings that are said to be the worker's alone, and the reverse."""
    for reader, package in (("API", "api"), ("worker", "worker")):
        foreign = Settings.model_fields.keys() - READERS[reader].keys()
        sources = {path: path.read_text(encoding="utf-8") for path in (ROOT / package).glob("**/*.py")}
        used = {
            name for name in foreign for text in sources.values() if re.search(rf"\bsettings\.{name}\b", text)
        }
        assert used == set(), reader


@pytest.mark.parametrize("parser", parsers(), ids=lambda parser: parser.prog)
def test_every_option_of_every_command_is_on_the_page(parser: argparse.ArgumentParser) -> None:
    section = PAGE["reference/commands.md"].split(f"## `{parser.prog}`\n")[1].split("\n## ")[0]
    told = parser.format_help()
    for option in set(re.findall(r"--[a-z][a-z-]+", told)) - {"--help"}:
        assert re.search(rf"{option}\b", section), option
    assert "**Exit status:** 0 " in section


def test_a_usage_line_shows_what_must_be_given_what_may_be_and_what_excludes_what() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("logs", metavar="LOG", nargs="+")
    parser.add_argument("--depth", type=int, default=7, help="so deep (default: %(default)s)")
    either = parser.add_mutually_exclusive_group()
    either.add_argument("--serve", metavar="PORT", nargs="?")
    either.add_argument("-q", "--quiet", action="store_true")
    color = parser.add_argument("--color", choices=("red", "blue"), required=True, help="paint it")
    assert usage(parser, "x") == "x [--depth DEPTH] [--serve [PORT] | -q, --quiet] --color COLOR LOG ..."
    assert written(color) == ["--color", "COLOR"]
    assert meaning(color) == "paint it: `red`, `blue`"


def test_every_operation_of_the_api_is_on_the_page_with_links_that_lead_somewhere() -> None:
    page = PAGE["reference/http.md"]
    names = {name.lower() for name in re.findall(r"^### (\w+)$", page, re.MULTILINE)}
    assert set(re.findall(r"\]\(#(\w+)\)", page)) == names
    for operation in ("POST /projects/{project_id}/collections", "POST /admin/backfill/pause", "GET /readyz"):
        assert f"\n### `{operation}`\n" in page
