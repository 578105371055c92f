"""JSON lines: one object per line, to stdout and, where asked for, to a file.

The value of `event` is a fixed name; everything that varies is a field of its own.
"""

import errno
import io
import logging
from pathlib import Path
from typing import TYPE_CHECKING, TextIO

import structlog

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer

logger = structlog.get_logger(__name__)

SCHEMA_VERSION = 1
# Less than this would drown our lines: one for each job, request, or job that was taken back.
LEAST_LEVELS = {"arq": logging.ERROR, "uvicorn.access": logging.WARNING, "httpx": logging.WARNING}


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

    def write(self, line: "ReadableBuffer") -> int:
        """Write one line, or as much of it as fits; never raise for want of space."""
        began, whole = False, bytes(line)
        try:
            self._write_rest()
            self._rest, began = whole, True
            self._write_rest()
        except OSError as error:
            if not began or self._rest == whole:
                self._lose(error)
            if self._rest == whole:
                self._rest = b""
        else:
            self._report_return()
        return len(whole)

    def _write_rest(self) -> None:
        while self._rest:
            self._rest = self._rest[super().write(self._rest) :]

    def _lose(self, error: OSError) -> None:
        self._lost += 1
        if self._lost == 1:  # our own line comes here too, and is lost in silence
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


class PatientFileHandler(logging.FileHandler):
    """Writes every line at once to a `PatientFile`: what a buffer kept back would be lost in silence."""

    def _open(self) -> io.TextIOWrapper:
        file = PatientFile(self.baseFilename)
        return io.TextIOWrapper(file, "utf-8", "backslashreplace", write_through=True)


def configure_logging(process: str, log_file: Path | None, stream: TextIO | None) -> None:
    """Send everything this process logs, third parties included, to `stream` and `log_file` as JSON lines.

    Args:
        process: `api`, `worker` or the command's name; each line says which wrote it.
        log_file: appended to; its directory must exist.
        stream: None when a person is at the terminal, who sees something better.

    """

    def stamp(_logger: object, _method: str, event: structlog.typing.EventDict) -> structlog.typing.EventDict:
        first = {name: event.pop(name) for name in ("timestamp", "level", "event")}
        return {**first, "process": process, "schema_version": SCHEMA_VERSION, **event}

    shared_processors: list[structlog.typing.Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        structlog.processors.format_exc_info,
        stamp,
    ]
    structlog.configure(
        processors=[*shared_processors, structlog.stdlib.ProcessorFormatter.wrap_for_formatter],
        wrapper_class=structlog.make_filtering_bound_logger(logging.INFO),
        logger_factory=structlog.stdlib.LoggerFactory(),
        cache_logger_on_first_use=False,
    )
    formatter = structlog.stdlib.ProcessorFormatter(
        foreign_pre_chain=[*shared_processors, structlog.stdlib.add_logger_name],
        processors=[
            structlog.stdlib.ProcessorFormatter.remove_processors_meta,
            structlog.processors.JSONRenderer(ensure_ascii=False, default=str),
        ],
    )
    handlers: list[logging.Handler] = [
        logging.NullHandler() if stream is None else logging.StreamHandler(stream)
    ]
    if log_file is not None:
        handlers.append(PatientFileHandler(log_file))
    for handler in handlers:
        handler.setFormatter(formatter)
    logging.basicConfig(level=logging.INFO, handlers=handlers, force=True)
    for name in ("uvicorn", "uvicorn.error", "uvicorn.access"):
        logging.getLogger(name).handlers.clear()
        logging.getLogger(name).propagate = True
    for name, level in LEAST_LEVELS.items():
        logging.getLogger(name).setLevel(level)
