"""The map in docs/architecture.md is the tree as it is."""

import re

import pytest

from tests.programs import ROOT

PAGE = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
MAP = PAGE.rsplit("```text\n", 1)[1].split("```")[0]


@pytest.mark.parametrize("part", ["api", "worker", "shared"])
def test_each_room_and_each_module_of_a_part_is_on_the_map(part: str) -> None:
    section = re.split(r"^(?=\S)", MAP, flags=re.MULTILINE)
    (lines,) = [text for text in section if text.startswith(f"{part}/")]
    named = set(re.findall(r"\w+", lines))
    there = {
        path.stem
        for path in (ROOT / part).iterdir()
        if (path.suffix == ".py" and path.name != "__init__.py") or (path / "__init__.py").exists()
    }
    assert there - named == set()


def test_each_room_on_the_map_exists() -> None:
    part = ""
    for line in MAP.splitlines():
        part = line.split("/")[0] if line[0] != " " else part
        for room in re.findall(r"(\w+)/", line):
            assert (ROOT / room).is_dir() or (ROOT / part / room).is_dir(), line
