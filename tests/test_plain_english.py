"""What we write names who acts, and says it as other engineers do."""

import re
import tokenize
from collections.abc import Iterator
from pathlib import Path

from tests.forked import ROOT

BANNED = {
    r"\b(anybody|somebody|whoever)\b": "name the actor: worker, caller, operator, session",
    r"\bso many\b": "name the number",
    r"\bsay (whether|in which)\b": "return whether",
    r"\b(tell|tells|telling|told)\b": "log, report, show, return",
    r"\bmend(s|ed|ing)?\b": "fix, repair",
    r"\bsee to it\b": "make sure, require",
}
PLACES = (
    "api",
    "shared",
    "worker",
    "migrations",
    "deploy",
    "benchmarks",
    "docs",
    "README.md",
    "CONTRIBUTING.md",
)
AS_RELEASED = {
    "api/admin/verification.py",  # bodies of answers
    "shared/tables/outbox.py",  # comments of columns, which migrations wrote
    "shared/tables/runs.py",
    *(f"migrations/versions/{name}.py" for name in ("0002_runs", "0003_dead_letters")),
}
FILES = [
    path
    for place in PLACES
    for path in [ROOT / place, *sorted((ROOT / place).rglob("*.py")), *sorted((ROOT / place).rglob("*.md"))]
    if path.is_file() and path.parent.name != "decisions" and str(path.relative_to(ROOT)) not in AS_RELEASED
]


def prose_of(path: Path) -> Iterator[tuple[int, str]]:
    """Yield the comments and strings of a module, or the lines of a page, each with its line's number."""
    if path.suffix != ".py":
        yield from enumerate(path.read_text(encoding="utf-8").splitlines(), 1)
        return
    with path.open("rb") as module:
        for token in tokenize.tokenize(module.readline):
            if token.type == tokenize.COMMENT or "STRING" in tokenize.tok_name[token.type]:
                yield token.start[0], token.string


def found_in(text: str) -> list[str]:
    return [
        f"{match[0]!r}: {better}"
        for banned, better in BANNED.items()
        for match in re.finditer(banned, text, re.IGNORECASE)
    ]


def test_prose_is_plain_english() -> None:
    found = [
        f"{path.relative_to(ROOT)}:{line}: {phrase}"
        for path in FILES
        for line, text in prose_of(path)
        for phrase in found_in(text)
    ]
    assert found == [], "\n".join(found)


def test_each_banned_phrase_is_found() -> None:
    phrases = ("Whoever reads", "so many rows", "Say whether it is", "it tells of", "was mended", "See to it")
    assert [len(found_in(phrase)) for phrase in phrases] == [1] * len(BANNED)
