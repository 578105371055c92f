"""The file of `LOG_FILE`: lines appended at once, renamed when it is large, patient with a full disk."""

import errno
import fcntl
import io
import logging
import math
import os
import stat
import time
from pathlib import Path

import structlog

logger = structlog.get_logger(__name__)

MAX_BYTES = 100 * 2**20
FILES = 5
SOON_SECONDS = 0.01  # within this another process has written the rest of its line


class LogFile:
    """A file of lines that several processes may share, and that outlives a disk without space.

    Each write is one system call in append mode. Before it grew beyond `MAX_BYTES` the file is renamed to
    `.1`, and those before it move up, so that there are `FILES` at most; a link or a device is only appended
    to. When another process renames or removes the file, it is opened anew.

    Lines for which there is no space are lost: the first is reported by one of ours, `log_file_failed`, the
    first that fits again by `log_file_restored` with the number `lost`. A line that was cut short is
    completed before the next. OSError where the file cannot be opened.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._lost = 0
        self._rest = b"\n" if _ends_within_a_line(path) else b""
        self._use(io.FileIO(path, "ab"))

    def write(self, lines: bytes) -> None:
        """Write whole lines, or as many as fit; never raise for want of space."""
        try:
            self._turn(len(lines))
        except OSError as error:  # there is no file of that name, and none can be made
            if not os.fstat(self._file.fileno()).st_nlink:  # and ours is nobody's
                self._lose(lines.count(b"\n"), error)
                return
        self._append(lines)

    def close(self) -> None:
        self._file.close()

    def _use(self, file: io.FileIO) -> None:
        self._file, self._status = file, os.fstat(file.fileno())
        self._limit: float = MAX_BYTES if stat.S_ISREG(self._path.lstat().st_mode) else math.inf

    def _turn(self, size: int) -> None:
        try:
            status = self._path.stat()
        except FileNotFoundError:
            self._reopen()
            return
        if not os.path.samestat(status, self._status):
            self._reopen()
        elif status.st_size and status.st_size + size > self._limit:
            self._rotate(status.st_size)

    def _reopen(self) -> None:
        file = io.FileIO(self._path, "ab")
        if self._rest:
            try:
                self._file.write(self._rest)
            except OSError:
                self._lost += 1
            self._rest = b""
        self._file.close()
        self._use(file)

    def _rotate(self, size: int) -> None:
        """Rename the file, and open it anew; while another process does so, ours will do."""
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return
        try:
            if os.path.samestat(self._path.stat(), self._status):  # nobody was faster
                _move_up(self._path)
        except FileNotFoundError:
            pass  # another was, which asks for no lock
        except OSError as error:
            self._grow_on(size, error)
            return
        finally:
            fcntl.flock(self._file, fcntl.LOCK_UN)
        self._reopen()

    def _grow_on(self, size: int, error: OSError) -> None:
        """Try again when the file has grown a little more; log that once."""
        first, self._limit = self._limit == MAX_BYTES, size + MAX_BYTES // 100
        if first:
            logger.error("log_file_not_rotated", error=_name(error))

    def _append(self, lines: bytes) -> None:
        text = self._rest + lines
        written, within_a_line = 0, bool(self._rest)
        try:
            while written < len(text):
                written += self._file.write(text[written:])
                within_a_line = text[written - 1 : written] != b"\n"
        except OSError as error:
            begun = text.index(b"\n", written) + 1 if within_a_line else written
            self._rest = text[written:begun]
            self._lose(text.count(b"\n", begun), error)
        else:
            self._rest = b""
            self._report_return()

    def _lose(self, lines: int, error: OSError) -> None:
        first = lines > 0 and not self._lost
        self._lost += lines
        if first:  # our own line comes here too, and is lost in silence
            logger.error("log_file_failed", error=_name(error))

    def _report_return(self) -> None:
        if self._lost:
            lost, self._lost = self._lost, 0
            logger.warning("log_file_restored", lost=lost)


def _name(error: OSError) -> str:
    return errno.errorcode.get(error.errno or 0, type(error).__name__)


def _ends_within_a_line(path: Path) -> bool:
    """Return whether a process left a line unfinished; one that another process is writing is none."""
    seen = -1
    try:
        with path.open("rb") as file:
            while (size := file.seek(0, io.SEEK_END)) != seen:
                file.seek(-1, io.SEEK_END)
                if file.read(1) == b"\n":
                    return False
                seen = size
                time.sleep(SOON_SECONDS)
    except OSError:  # it is empty, or not there, or no file to be read
        return False
    return True


def _move_up(path: Path) -> None:
    """Make room for a new file of this name: what was `.1` is `.2`, and so on up to the first gap."""
    numbered = [path.with_name(f"{path.name}.{number}") for number in range(1, FILES)]
    gap = next((place for place, old in enumerate(numbered) if not old.exists()), len(numbered) - 1)
    for place in range(gap, 0, -1):
        numbered[place - 1].replace(numbered[place])
    path.replace(numbered[0])


class LogFileHandler(logging.Handler):
    """Writes every record at once to a `LogFile`: what a buffer kept back would be lost in silence."""

    def __init__(self, path: Path) -> None:
        self._file = LogFile(path)  # first, or Python would close a handler that has none
        super().__init__()

    def emit(self, record: logging.LogRecord) -> None:
        """Write the record's text, which may be several lines; report on stderr what cannot be written."""
        try:
            self._file.write(f"{self.format(record)}\n".encode(errors="backslashreplace"))
        except Exception:  # noqa: BLE001 - logging must not fail its caller
            self.handleError(record)

    def close(self) -> None:
        self.acquire()
        try:
            self._file.close()
        finally:
            self.release()
        super().close()
