"""Log files and the older ones that rotation made of them, whatever it called them."""

import os
import re
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from worker.dashboard.packing import LONGEST_MAGIC, SUFFIXES, ForeignPackingError, unpacked

STDIN = Path("-")
PACKED = "|".join(re.escape(suffix) for suffix in sorted(SUFFIXES))
# After the log's whole name: a number, a date or a time however it is written, or `.old`.
AFTER = re.compile(rf"(?:\.(?P<number>\d{{1,6}})|[-._@+](?P<date>\d[\dTZ:.,_+-]*)|\.old)(?:{PACKED})?")
# Before its suffix, where another log's name may end with a number as well: a date, or `.1`.
WITHIN = re.compile(r"(?:\.(?P<number>\d{1,3})|[-._](?P<date>\d{4}-?\d\d-?\d\d[\dTZ:.,_+-]*|\d{10}))")
SEPARATORS = "-._~@+"
OLDEST = ""
LEAST_DATE = 6  # digits; `worker-2` may be the log of a second worker


class LogFileError(Exception):
    """A file cannot be read; the message says which, and what to do."""


@dataclass(frozen=True, slots=True)
class Member:
    """One file of a family, as it was when it was listed."""

    path: Path
    key: tuple[int, int]  # device and inode: a renamed file keeps them
    size: int


def is_stream(path: Path) -> bool:
    """Return whether the path leads to what is read to its end once, such as a pipe."""
    if path == STDIN:
        return True
    mode = path.stat().st_mode
    return stat.S_ISFIFO(mode) or stat.S_ISCHR(mode) or stat.S_ISSOCK(mode)


def check(path: Path) -> None:
    """Raise LogFileError unless the path names a file or a pipe that can be read."""
    if path == STDIN:
        return
    try:
        if path.is_dir():
            raise LogFileError(f"{path} is a directory. Name the log files in it, such as {path}/worker.log.")
        if is_stream(path):  # to open a FIFO would be to wait for its writer
            return
        with path.open("rb") as file:
            unpacked(file, file.read(LONGEST_MAGIC))
    except FileNotFoundError:
        raise LogFileError(f"There is no file {path}. LOG_FILE of API and worker says where it is.") from None
    except OSError as error:
        raise LogFileError(f"{path} cannot be read: {error.strerror}.") from error
    except ForeignPackingError as error:
        raise LogFileError(f"{path} cannot be read: {error}.") from None


def family(path: Path) -> list[Member]:
    """List the file and what rotation made of it, the oldest first.

    Of `worker.log` those are `worker.log.1`, `worker.log.2.gz` …, logrotate's `worker.log-20260131` in any
    format of its date, `worker-20260131.log` and `worker.1.log`. What vanishes meanwhile is left out; that
    may be the file itself.
    """
    rotated = [(age, sibling) for sibling in _siblings(path) if (age := _age(path, sibling)) is not None]
    ordered = [sibling for _, sibling in sorted(rotated)]
    return [member for candidate in (*ordered, path) if (member := _member(candidate)) is not None]


def strangers(path: Path) -> list[Path]:
    """List the files whose names begin with the log's but that are not known to be parts of it."""
    return sorted(
        sibling
        for sibling in _siblings(path)
        if sibling.name.startswith(tuple(f"{path.name}{mark}" for mark in SEPARATORS))
        and _age(path, sibling) is None
        and _member(sibling) is not None
    )


def why_alone(path: Path) -> str | None:
    """Return why it cannot be seen what rotation made of the file, or None where it can."""
    try:
        next(path.parent.iterdir(), None)
    except OSError as error:
        return error.strerror
    return None


def belongs_to(path: Path, named: Path) -> bool:
    """Return whether the path is the log that was named, or has a name that rotation may give it."""
    path, named = Path(os.path.realpath(path)), Path(os.path.realpath(named))
    if path.exists() and named.exists() and path.samefile(named):
        return True
    return path.parent == named.parent and (path == named or _age(named, path) is not None)


def _siblings(path: Path) -> Iterator[Path]:
    try:
        yield from (sibling for sibling in path.parent.iterdir() if sibling.name != path.name)
    except OSError:
        return


def _age(path: Path, sibling: Path) -> tuple[int, int, str] | None:
    """Return what sorts the oldest first, or None where the name is of no rotation of the log.

    Dates come first, from the earliest on, then numbers from the highest down.
    """
    name = sibling.name
    match = AFTER.fullmatch(name[len(path.name) :]) if name.startswith(path.name) else None
    if match is None and path.suffix and name.startswith(path.stem):
        rest = name.removesuffix(sibling.suffix) if sibling.suffix in SUFFIXES else name
        within = rest.removesuffix(path.suffix)[len(path.stem) :]
        match = WITHIN.fullmatch(within) if rest.endswith(path.suffix) else None
    if match is None:
        return None
    found = match.groupdict()
    if found["number"] is not None:
        return (1, -int(found["number"]), OLDEST)
    digits = re.sub(r"\D", "", found["date"] or OLDEST)
    return (0, 0, digits) if len(digits) >= LEAST_DATE or found["date"] is None else None


def _member(path: Path) -> Member | None:
    try:
        found = path.stat()
        return Member(path, (found.st_dev, found.st_ino), found.st_size) if path.is_file() else None
    except OSError:
        return None
