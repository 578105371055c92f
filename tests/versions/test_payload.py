"""What the release before leaves out of its events, this one does without."""

import re
from pathlib import Path

from shared.projection import COLUMNS
from tests.versions.kept_releases import BEFORE

FILES = ("outbox", "projection")  # where a release says what an event holds


def test_a_column_that_the_release_before_leaves_out_of_its_events_is_said_to_be_new(tmp_path: Path) -> None:
    """Its events would be malformed, and die."""
    shared = BEFORE.unpack(tmp_path) / "shared"
    texts = [path.read_text(encoding="utf-8") for path in shared.glob("*.py") if path.stem in FILES]
    known = set(re.findall(r"""['"](\w+)['"]""", "\n".join(texts)))
    assert "research_context" in known
    assert {column.name for column in COLUMNS if not column.is_new} - known == set()
