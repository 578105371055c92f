"""Reading what is no file: a pipe, a FIFO, standard input. It is read to its end, once."""

import io
import os
import stat
from collections.abc import Iterator
from pathlib import Path

from worker.dashboard.files import STDIN
from worker.dashboard.log_state import Clock, LogState
from worker.dashboard.packing import DAMAGE, LONGEST_MAGIC, ForeignPackingError, Unpacked, unpacked
from worker.dashboard.splitting import CHUNK, LineSplitter


class Piped:
    """A stream of log lines, as `Followed` is of files.

    Where the page is served meanwhile (`live`) nothing waits for the writer: a reading takes what there is.
    Else opening a FIFO waits for its writer. OSError where it cannot be opened.
    """

    def __init__(self, path: Path, state: LogState, *, live: bool) -> None:
        self._name = "standard input" if path == STDIN else str(path)
        self._state = state
        self._lines = LineSplitter(state, Clock())
        self._file = io.FileIO(_opened(path, live=live), "rb")
        self._live = live
        self._stream: Unpacked | None = None
        state.source.files += 1

    def read(self) -> Iterator[None]:
        """Take all that there is, or where nothing is served all that comes; yields after each chunk."""
        try:
            while data := self._next():
                self._state.source.bytes_read += len(data)
                self._lines.feed(data)
                yield
        except ForeignPackingError as error:
            self._state.not_read(f"{self._name}: {error}")
        except DAMAGE as error:
            self._lines.end()
            self._state.broken(f"{self._name}: {error}")

    def _next(self) -> bytes | None:
        if self._live:
            return self._file.read(CHUNK)
        if self._stream is None:
            packed = io.BufferedReader(self._file, CHUNK)
            self._stream = unpacked(packed, packed.peek(LONGEST_MAGIC)[:LONGEST_MAGIC]) or packed
        return self._stream.read1(CHUNK)

    def look(self) -> None:
        """Find nothing: no rotation comes to a pipe."""

    def close(self) -> None:
        self._lines.end()
        self._file.close()


def _opened(path: Path, *, live: bool) -> int:
    if path != STDIN:
        return os.open(path, os.O_RDONLY | (os.O_NONBLOCK if live else 0))
    number = os.dup(0)  # to open /dev/stdin may not be allowed
    if live and not stat.S_ISREG(os.fstat(number).st_mode):
        os.set_blocking(number, False)
    return number
