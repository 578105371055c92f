"""Other PostgreSQL versions: where `make engines` puts them, and which tests need a later one than is tested.

`POSTGRES_BINARIES` names the directory of the server that all tests run on. This is a pytest plugin, too.
"""

from pathlib import Path

import pytest

from deploy.local.postgres import find_binaries, major_of

ENGINES = Path(__file__).parents[1] / ".local" / "engines" / "node_modules"
SINCE = "since"
# Before, a process collects what sessions report, and nobody can tell when it has all of it.
COUNTS_AT_ONCE = pytest.mark.since(15, "statistics that can be read as soon as they are reported")
HAS_MERGE = pytest.mark.since(15, "MERGE")
HAS_ICU_DATABASES = pytest.mark.since(15, "database in the order of ICU")
FIRST_WITH_LOCALE_PROVIDERS = 15
LIBC = "LOCALE_PROVIDER libc" if major_of(find_binaries()) >= FIRST_WITH_LOCALE_PROVIDERS else ""


def engine(major: int) -> Path | None:
    """Return where the programs of this version lie; None where they do not."""
    return next(ENGINES.glob(f"postgresql-{major}-*/native/bin"), None)


def binaries(major: int) -> Path:
    """Return the same; skip the test that asks where they do not."""
    if (found := engine(major)) is None:
        pytest.skip(f"PostgreSQL {major} is missing: make engines")
    return found


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "since(major, what): skipped on an older PostgreSQL")


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item: pytest.Item) -> None:
    major = major_of(find_binaries())
    for mark in item.iter_markers(SINCE):
        first, what = mark.args
        if major < first:
            pytest.skip(f"PostgreSQL {major} has no {what}")
