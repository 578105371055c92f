"""`python -m deploy.docs`: make the pages that come from the code, or see whether they are up to date."""

import argparse
import sys
from collections.abc import Callable
from pathlib import Path

from deploy.docs.commands_page import commands_page
from deploy.docs.http_page import http_page
from deploy.docs.log_page import log_page
from deploy.docs.markdown import MADE_BELOW
from deploy.docs.settings_page import settings_page
from deploy.docs.statements_page import statements_page

DIRECTORY = Path(__file__).parents[2] / "docs"
PAGES: dict[str, Callable[[], str]] = {
    "logs.md": log_page,
    "reference/commands.md": commands_page,
    "reference/http.md": http_page,
    "reference/settings.md": settings_page,
    "reference/statements.md": statements_page,
}
COMMAND = "python -m deploy.docs"


def outdated(directory: Path = DIRECTORY) -> dict[Path, str]:
    """Return the pages that differ from what the code says, each with what it should be."""
    made = {directory / name: _whole(directory / name, make()) for name, make in PAGES.items()}
    return {path: text for path, text in made.items() if not path.exists() or read(path) != text}


def read(path: Path) -> str:
    return path.read_text(encoding="utf-8")


def _whole(path: Path, made: str) -> str:
    """Return the page with what people wrote above its mark, where it has one."""
    return read(path).partition(MADE_BELOW)[0] + made if made.startswith(MADE_BELOW) else made


def main() -> int:
    """Write the pages, or with --check only name those that differ; return the exit status."""
    parser = argparse.ArgumentParser(
        prog=COMMAND,
        description="Make the pages that come from the code: commands, HTTP, log, settings, statements.",
    )
    parser.add_argument(
        "--check", action="store_true", help="write nothing; end with status 1 where a page is out of date"
    )
    arguments = parser.parse_args()
    pages = outdated()
    for path, text in pages.items():
        print(f"{path.relative_to(DIRECTORY.parent)} is {'out of date' if arguments.check else 'made'}")
        if not arguments.check:
            path.write_text(text, encoding="utf-8")
    if pages and arguments.check:
        print(f"Make them anew: {COMMAND}")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
