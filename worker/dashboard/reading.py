"""Reading logs: whole, and as they grow. Memory holds one chunk, whatever the length of file and line."""

import gzip
import io
import os
import zlib
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Final

from worker.dashboard.files import check, family
from worker.dashboard.log_state import Clock, LogState

CHUNK: Final = 256 * 1024  # bytes, about five milliseconds of work
LONGEST_LINE: Final = 1024 * 1024
SAMPLE: Final = 200
MOST_OPEN: Final = 64  # files of one log
GZIP_MAGIC = b"\x1f\x8b"

Key = tuple[int, int]  # device and inode: a renamed file keeps them


class Lines:
    """Divides the bytes of one file into lines and folds them in."""

    def __init__(self, state: LogState, clock: Clock) -> None:
        """Fold into the state; `clock` is that of the machine that wrote the file."""
        self._state = state
        self._clock = clock
        self._rest = b""
        self._skipping = False  # within a line that is too long to be one of ours

    def feed(self, data: bytes) -> None:
        """Take the next bytes. What follows the last newline is kept until its rest comes."""
        end = data.rfind(b"\n")
        if end < 0:
            self._keep(data)
            return
        whole, after = data[:end], data[end + 1 :]
        if self._skipping:
            _, found, whole = whole.partition(b"\n")
            self._skipping = False
            if not found:
                whole = b""
        else:
            whole = self._rest + whole
        self._rest = b""
        self._fold(whole)
        self._keep(after)

    def end(self) -> None:
        """Take what was kept as the last line: there is no more to come."""
        if not self._skipping:
            self._fold(self._rest)
        self.forget()

    def forget(self) -> None:
        """Drop what was kept: the file begins anew."""
        self._rest, self._skipping = b"", False

    def _keep(self, data: bytes) -> None:
        if self._skipping:
            return
        self._rest += data
        if len(self._rest) > LONGEST_LINE:
            self._state.broken(self._rest[:SAMPLE].decode("utf-8", "replace"))
            self._rest, self._skipping = b"", True

    def _fold(self, data: bytes) -> None:
        if not data:
            return
        texts = data.decode("utf-8", "surrogateescape").split("\n")
        if len(data) > LONGEST_LINE:  # then its first line, made of several chunks, may be too long
            texts = self._without_long_ones(texts)
        self._state.fold(texts, self._clock)

    def _without_long_ones(self, texts: list[str]) -> list[str]:
        for text in texts:
            if len(text) > LONGEST_LINE:
                self._state.broken(text)
        return [text for text in texts if len(text) <= LONGEST_LINE]


class Tail:
    """One file that is open, and how far it was read. It stays the same file when it is renamed."""

    def __init__(self, path: Path, state: LogState, clock: Clock) -> None:
        """Open the file; raise OSError where that fails."""
        self._state = state
        self._file = io.FileIO(path, "rb")
        self._lines = Lines(state, clock)
        self._counted = 0
        found = os.fstat(self._file.fileno())
        self.key = (found.st_dev, found.st_ino)
        self.packed = os.pread(self._file.fileno(), len(GZIP_MAGIC), 0) == GZIP_MAGIC
        self._stream: io.FileIO | gzip.GzipFile | io.BytesIO = self._file
        if self.packed:
            self._stream = gzip.GzipFile(fileobj=self._file, mode="rb")

    def read(self) -> bool:
        """Take the next chunk; False when there was none."""
        if not self.packed and os.fstat(self._file.fileno()).st_size < self._file.tell():
            self._start_anew()
        try:
            data = self._next()
        except (EOFError, zlib.error, OSError) as error:
            data = self._give_up(error)
        self._count()
        if data:
            self._lines.feed(data)
        return bool(data)

    def _next(self) -> bytes:
        if isinstance(self._stream, gzip.GzipFile):
            return self._stream.read1(CHUNK)  # its `read` loses what comes before damage
        return self._stream.read(CHUNK)

    def _start_anew(self) -> None:
        """Read from the start again: somebody emptied the file."""
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
        """Take the last line, newline or not, and close the file."""
        self._lines.end()
        self._stream.close()
        self._file.close()


class Followed:
    """One log and what rotation makes of it, followed by inode: no line is read twice, none passed over.

    All its files stay open while they are there: a renamed one may still be written to, and the inode of an
    open file is not given to another.

    Where logrotate copies a file and empties it, the copy is left alone; what was written between the last
    look and the emptying is lost to us.
    """

    def __init__(self, path: Path, state: LogState, known: set[Key]) -> None:
        """Open all files that there are; `known` are those that somebody has read or opened before."""
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

    def _open(self, path: Path) -> Tail | None:
        try:
            tail = Tail(path, self._state, self._clock)
        except FileNotFoundError:  # it was rotated away this very moment
            return None
        except OSError as error:
            self._state.broken(f"{path}: {error.strerror}")
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
        """Find the files that came by rotation since."""
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
            elif member.key not in self._known and member.path.suffix != ".gz":
                self._open(member.path)

    def close(self) -> None:
        """Take the last lines, newline or not, and close all files."""
        for tail in self._tails.values():
            tail.close()
        self._tails.clear()


class Logs:
    """All the logs that were named."""

    def __init__(self, paths: Iterable[Path], state: LogState) -> None:
        """Open them; raise LogFileError when one is no file that can be read."""
        self._state = state
        known: set[Key] = set()
        paths = list(dict.fromkeys(paths))
        for path in paths:
            check(path)
        self._followed = [Followed(path, state, known) for path in paths]

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
        """Take the last lines, newline or not, and close all files."""
        for followed in self._followed:
            followed.close()
