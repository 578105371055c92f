"""Reading logs: whole, and as they grow."""

import io
import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Final

from worker.dashboard.files import check, family, is_stream, strangers, why_alone
from worker.dashboard.log_state import Clock, LogState
from worker.dashboard.packing import (
    DAMAGE,
    LONGEST_MAGIC,
    SUFFIXES,
    ForeignPackingError,
    Unpacked,
    unpacked,
)
from worker.dashboard.pipes import Piped
from worker.dashboard.splitting import CHUNK, LineSplitter

MOST_OPEN: Final = 64  # files of one log

Key = tuple[int, int]  # device and inode: a renamed file keeps them


class Tail:
    """One file that is open, and how far it was read. It stays the same file when it is renamed.

    OSError or ForeignPackingError where it cannot be opened.
    """

    def __init__(self, path: Path, state: LogState, clock: Clock) -> None:
        self._state = state
        self._file = io.FileIO(path, "rb")
        self._lines = LineSplitter(state, clock)
        self._counted = 0
        found = os.fstat(self._file.fileno())
        self.key = (found.st_dev, found.st_ino)
        try:
            packed = unpacked(self._file, os.pread(self._file.fileno(), LONGEST_MAGIC, 0))
        except ForeignPackingError:
            self._file.close()
            raise
        self.packed = packed is not None
        self._stream: Unpacked | io.FileIO = packed or self._file

    def read(self) -> bool:
        """Take the next chunk; False when there was none."""
        if not self.packed and os.fstat(self._file.fileno()).st_size < self._file.tell():
            self._start_anew()
        try:
            data = self._next()
        except DAMAGE as error:
            data = self._give_up(error)
        self._count()
        if data:
            self._lines.feed(data)
        return bool(data)

    def _next(self) -> bytes:
        if isinstance(self._stream, io.FileIO):
            return self._stream.read(CHUNK)
        return self._stream.read1(CHUNK)  # a packed file's `read` loses what comes before damage

    def _start_anew(self) -> None:
        """Read from the start again: the file was emptied."""
        self._file.seek(0)
        self._counted = 0
        self._lines.forget()

    def _give_up(self, error: Exception) -> bytes:
        """Count the rest of a damaged file as one broken line."""
        self._lines.end()
        self._state.broken(f"{self._file.name!s}: {error}")
        self._stream = io.BytesIO()
        return b""

    def _count(self) -> None:
        position = self._file.tell()
        self._state.source.bytes_read += position - self._counted
        self._counted = position

    def close(self) -> None:
        self._lines.end()
        self._stream.close()
        self._file.close()


class Followed:
    """One log and what rotation makes of it, followed by inode: no line is read twice, none passed over.

    All its files stay open while they are there: a renamed one may still be written to, and the inode of an
    open file is not given to another.

    Where logrotate copies a file and empties it, the copy is left alone; what was written between the last
    look and the emptying is lost to us. `known` are files that another has opened.
    """

    def __init__(self, path: Path, state: LogState, known: set[Key]) -> None:
        self._path = path
        self._state = state
        self._known = known
        self._clock = Clock()
        self._tails: dict[Key, Tail] = {}
        self._current: Key | None = None
        self._gone: set[Key] = set()
        for member in family(path):
            if member.path == path:
                self._current = member.key
            if member.key not in known and self._open(member.path) is not None:
                state.source.bytes_total += member.size
        if (reason := why_alone(path)) is not None:
            state.not_read(f"{path.parent}: {reason}; what rotation made of {path.name} is not seen")
        for stranger in strangers(path):
            state.not_read(f"{stranger}: not known to be a part of {path.name}; name it if it is")

    def _open(self, path: Path) -> Tail | None:
        try:
            tail = Tail(path, self._state, self._clock)
        except FileNotFoundError:  # it was rotated away this very moment
            return None
        except OSError as error:
            self._state.not_read(f"{path}: {error.strerror}")
            return None
        except ForeignPackingError as error:
            self._state.not_read(f"{path}: {error}")
            return None
        if tail.key in self._tails:
            tail.close()
            return None
        self._known.add(tail.key)
        self._tails[tail.key] = tail
        self._state.source.files += 1
        return tail

    def read(self) -> Iterator[None]:
        """Take all that there is, the oldest first; yields after each chunk."""
        for tail in list(self._tails.values()):
            while tail.read():
                yield
            if tail.packed or tail.key in self._gone or len(self._tails) > MOST_OPEN:
                tail.close()
                del self._tails[tail.key]
        self._known -= self._gone

    def look(self) -> None:
        try:
            found = self._path.stat()
        except OSError:
            return  # between a renaming and the file's return
        key = (found.st_dev, found.st_ino)
        if key == self._current:
            return
        members = family(self._path)
        self._gone = self._tails.keys() - {member.key for member in members}
        for member in members:
            if member.path == self._path:
                tail = self._open(member.path)
                self._current = key if tail is None else tail.key
            elif member.key not in self._known and member.path.suffix not in SUFFIXES:
                self._open(member.path)

    def close(self) -> None:
        for tail in self._tails.values():
            tail.close()
        self._tails.clear()


class Logs:
    """The logs that were named; LogFileError where one cannot be read. `live`: never wait for a writer."""

    def __init__(self, paths: Iterable[Path], state: LogState, *, live: bool = False) -> None:
        self._state = state
        known: set[Key] = set()
        paths = list(dict.fromkeys(paths))
        for path in paths:
            check(path)
        self._followed: list[Followed | Piped] = [
            Piped(path, state, live=live) if is_stream(path) else Followed(path, state, known)
            for path in paths
        ]

    def read(self) -> Iterator[None]:
        """Take all that there is now; yields after each chunk, a few milliseconds of work."""
        source = self._state.source
        for followed in self._followed:
            for _ in followed.read():
                source.bytes_total = max(source.bytes_total, source.bytes_read)
                yield
        source.bytes_total = source.bytes_read

    def look(self) -> None:
        """Find the files that came by rotation since; `read` takes them then."""
        for followed in self._followed:
            followed.look()

    def close(self) -> None:
        for followed in self._followed:
            followed.close()
