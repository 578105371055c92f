"""Log files and the older ones that rotation made of them."""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

ROTATED = re.compile(r"\.(\d{1,6})(\.gz)?|[-.](\d{8}(?:-?\d{1,10})?)(\.gz)?")


class LogFileError(Exception):
    """A file cannot be read; the message says which, and what to do."""


@dataclass(frozen=True, slots=True)
class Member:
    """One file of a family, as it was when it was listed."""

    path: Path
    key: tuple[int, int]  # device and inode: a renamed file keeps them
    size: int


def check(path: Path) -> None:
    """Raise LogFileError unless the path names a file that can be read."""
    try:
        if path.is_dir():
            raise LogFileError(f"{path} is a directory. Name the log files in it, such as {path}/worker.log.")
        if not path.is_file():
            raise LogFileError(f"There is no file {path}. LOG_FILE of API and worker says where it is.")
        with path.open("rb"):
            pass
    except OSError as error:
        raise LogFileError(f"{path} cannot be read: {error.strerror}.") from error


def family(path: Path) -> list[Member]:
    """List the file and what rotation made of it, the oldest first.

    Of `worker.log` those are `worker.log.1`, `worker.log.2.gz` …, and logrotate's `worker.log-20260131`.
    What vanishes meanwhile is left out; that may be the file itself.
    """
    rotated = [(_age(found[0]), found[1]) for found in _siblings(path)]
    ordered = [sibling for _, sibling in sorted(rotated)]
    return [member for candidate in (*ordered, path) if (member := _member(candidate)) is not None]


def _siblings(path: Path) -> Iterable[tuple[re.Match[str], Path]]:
    try:
        for sibling in path.parent.iterdir():
            if sibling.name.startswith(path.name):
                match = ROTATED.fullmatch(sibling.name[len(path.name) :])
                if match is not None:
                    yield match, sibling
    except OSError:
        return


def _age(match: re.Match[str]) -> tuple[int, int, str]:
    """Return what sorts the oldest first: dates from the first on, numbers from the highest down."""
    number, _, date, _ = match.groups()
    return (0, 0, date) if number is None else (1, -int(number), "")


def _member(path: Path) -> Member | None:
    try:
        found = path.stat()
        return Member(path, (found.st_dev, found.st_ino), found.st_size) if path.is_file() else None
    except OSError:
        return None
