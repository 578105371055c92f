"""What README.md and docs/tutorial.md ask a reader to type does what they say."""

import os
import shutil
import sys
from pathlib import Path

import pytest

from tests.docs.checkout import copy_checkout
from tests.docs.pages import blocks_of
from tests.docs.reader import Reader
from tests.docs.terminal import terminal
from tests.processes import ROOT

TUTORIAL = (ROOT / "docs" / "tutorial.md").read_text(encoding="utf-8")
README = (ROOT / "README.md").read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def checkout(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return copy_checkout(tmp_path_factory.mktemp("reader") / "collection-sync")


def of_a_reader(**more: str) -> dict[str, str]:
    """Return the environment of somebody who has opened a terminal and done nothing yet."""
    kept = {name: os.environ[name] for name in ("PATH", "HOME", "LOCPATH") if name in os.environ}
    return kept | more


@pytest.mark.slow
def test_the_tutorial_can_be_followed_word_for_word(checkout: Path) -> None:
    environment = of_a_reader()
    with terminal(checkout, environment) as first, terminal(checkout, environment) as second:
        Reader(first, second).follow(blocks_of(TUTORIAL))
