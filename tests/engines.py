"""Binaries of other PostgreSQL versions, as `make engines` installs them."""

from pathlib import Path

import pytest

ENGINES = Path(__file__).parents[1] / ".local" / "engines" / "node_modules"


def binaries(major: int) -> Path:
    """Return where the programs of this version lie; skip the test that asks where they do not."""
    directory = ENGINES / f"postgresql-{major}" / "native" / "bin"
    if not (directory / "postgres").exists():
        pytest.skip(f"PostgreSQL {major} is missing: make engines")
    return directory
