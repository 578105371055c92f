"""The file of `LOG_FILE`: lines appended at once, on a full disk as well."""

import errno
import io
import logging
from pathlib import Path
from typing import TYPE_CHECKING

import structlog

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer

logger = structlog.get_logger(__name__)


class PatientFile(io.FileIO):
    """A file of lines that outlives a disk without space, at the cost of the lines that do not fit.

    The first line lost is reported by one of ours, `log_file_failed`, the first that fits again by
    `log_file_restored` with the number `lost`. A line that was cut short is completed before the next.
    """

    def __init__(self, path: str) -> None:
        """Append to the file, from a new line on, or create it."""
        super().__init__(path, "ab")
        self._rest = b"\n" if _ends_within_a_line(path) else b""
        self._lost = 0

    def write(self, lines: "ReadableBuffer") -> int:
        """Write whole lines by one call, or as many as fit; never raise for want of space."""
        text = self._rest + bytes(lines)
        written, within_a_line = 0, bool(self._rest)
        try:
            while written < len(text):
                written += super().write(text[written:])
                within_a_line = text[written - 1 : written] != b"\n"
        except OSError as error:
            begun = text.index(b"\n", written) + 1 if within_a_line else written
            self._rest = text[written:begun]
            self._lose(text.count(b"\n", begun), error)
        else:
            self._rest = b""
            self._report_return()
        return len(text)

    def _lose(self, lines: int, error: OSError) -> None:
        first = lines > 0 and not self._lost
        self._lost += lines
        if first:  # our own line comes here too, and is lost in silence
            logger.error("log_file_failed", error=errno.errorcode.get(error.errno or 0, type(error).__name__))

    def _report_return(self) -> None:
        if self._lost:
            lost, self._lost = self._lost, 0
            logger.warning("log_file_restored", lost=lost)


def _ends_within_a_line(path: str) -> bool:
    try:
        with Path(path).open("rb") as file:
            file.seek(-1, io.SEEK_END)
            return file.read(1) != b"\n"
    except OSError:  # it is empty, or not there, or no file to be read
        return False


class PatientFileHandler(logging.Handler):
    """Writes every record at once to a `PatientFile`: what a buffer kept back would be lost in silence."""

    def __init__(self, path: Path) -> None:
        """Append to the file; its directory must exist."""
        super().__init__()
        self._file = PatientFile(str(path))

    def emit(self, record: logging.LogRecord) -> None:
        """Write the record's text, which may be several lines; report on stderr what cannot be written."""
        try:
            self._file.write(f"{self.format(record)}\n".encode(errors="backslashreplace"))
        except Exception:  # noqa: BLE001 - whoever logs must not fail of it
            self.handleError(record)

    def close(self) -> None:
        """Close the file."""
        self.acquire()
        try:
            self._file.close()
        finally:
            self.release()
        super().close()
