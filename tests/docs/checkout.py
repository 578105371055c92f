"""A copy of the checkout in which a reader's commands may write, install nothing and delete."""

import shutil
import sys
from pathlib import Path

from tests.forked import ROOT

NOT_COPIED = shutil.ignore_patterns(".git", ".venv*", ".local", ".*_cache", ".schemathesis", "*.log")


def copy_checkout(to: Path) -> Path:
    """Copy the checkout, with an environment that `make` takes for installed, and return its directory."""
    copy = Path(shutil.copytree(ROOT, to, ignore=NOT_COPIED))
    environment = copy / ".venv"
    environment.mkdir()
    for part in Path(sys.prefix).iterdir():
        (environment / part.name).symlink_to(part)
    (environment / "installed").unlink(missing_ok=True)
    (environment / "installed").touch()
    return copy
