"""The documentation as a site: it builds without a warning, answers what is asked, and loads nothing."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.forked import ROOT
from tests.programs import needed

LOADED = re.compile(r'<(?:script|link|img|iframe|source)\b[^>]*?\b(?:src|href)="(?:https?:)?//([^"]*)"')
# Questions that a reader must find answered from the first page on, and a word of each answer.
ASKED = {
    "What is pending?": "collection_sync_oldest_pending_seconds",
    "Why did an event die?": "python -m worker.dead_letters list",
    "How do I stop a backfill?": "--pause",
    "What happens when Redis dies?": "Nothing is lost",
    "How do I go back?": "--rollback",
    "Are both tables equal?": "python -m worker.audit",
}


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Build the site from a copy of what it is made of."""
    needed("dot")
    copy = tmp_path_factory.mktemp("docs")
    shutil.copytree(ROOT / "docs", copy / "docs")
    shutil.copytree(ROOT / "deploy" / "docs", copy / "deploy" / "docs")
    shutil.copy(ROOT / "mkdocs.yml", copy)
    built = subprocess.run(
        [sys.executable, "-m", "zensical", "build", "--strict"],
        cwd=copy,
        env={**os.environ, "PYTHONPATH": str(copy), "NO_COLOR": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert built.returncode == 0, built.stdout[-3000:] + built.stderr[-3000:]
    return copy / ".local" / "site"


@pytest.mark.wide
def test_every_page_is_built_and_loads_nothing_from_elsewhere(site: Path) -> None:
    sources = {path.relative_to(ROOT / "docs").with_suffix(".html") for path in ROOT.glob("docs/**/*.md")}
    pages = {path.relative_to(site): path.read_text(encoding="utf-8") for path in site.glob("**/*.html")}
    assert sources <= pages.keys()
    loaded = {f"{page}: {match[1]}" for page, text in pages.items() for match in LOADED.finditer(text)}
    assert {line for line in loaded if not line.endswith("/canonical")} == set()
    for style in site.glob("**/*.css"):
        assert not re.search(r"url\(\s*['\"]?(https?:)?//", style.read_text(encoding="utf-8")), style


@pytest.mark.wide
def test_diagrams_are_drawn_when_the_site_is_built(site: Path) -> None:
    index = (site / "index.html").read_text(encoding="utf-8")
    assert re.search(r'<svg role="img" aria-label="How a write reaches project_collections"', index)
    assert "digraph" not in index


@pytest.mark.wide
@pytest.mark.parametrize(("question", "answer"), ASKED.items())
def test_a_reader_finds_an_answer_from_the_first_page_on(question: str, answer: str, site: Path) -> None:
    index = (site / "index.html").read_text(encoding="utf-8")
    link = re.search(rf'<a href="([^"#]+)#([^"]+)">{re.escape(question)}</a>', index)
    assert link is not None
    page = (site / link[1]).read_text(encoding="utf-8")
    begin = page.index(f'id="{link[2]}"')
    end = page.find("<h2", begin)
    said = re.sub(r"<[^>]+>", "", page[begin:end])
    assert answer in said
