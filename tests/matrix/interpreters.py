"""Another Python with what requirements-dev.txt pins, in an environment of its own below .local."""

import subprocess
import sys
from pathlib import Path

from tests.forked import ROOT

PINNED = ROOT / "requirements-dev.txt"
INSTALL = ("-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--require-hashes", "-r")


def with_our_packages(python: str) -> Path:
    """Return the interpreter that runs the tests; ours has the packages already.

    Raises:
        subprocess.CalledProcessError: they cannot be installed.

    """
    if python == sys.executable:
        return Path(python)
    directory = ROOT / ".local" / "pythons" / Path(python).name
    ours, installed = directory / "bin" / "python", directory / "installed.txt"
    if not installed.exists() or installed.read_text() != PINNED.read_text():
        subprocess.run([python, "-m", "venv", "--clear", directory], check=True)
        subprocess.run([ours, *INSTALL, PINNED], check=True)
        installed.write_text(PINNED.read_text())
    return ours
