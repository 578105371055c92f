"""JSON lines: one object per line, to stdout and, where asked for, to a file.

The value of `event` is a fixed name; everything that varies is a field of its own: see `contract.py`.
"""

import itertools
import json
import logging
import operator
import sys
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import TextIO

import orjson
import structlog

from shared.logs.declaring import LOG_VERSION
from shared.logs.file import LogFileHandler
from shared.process.streams import Patient, patient
from shared.settings import SettingsError

logger = structlog.get_logger(__name__)

# Less than this would drown our lines: one for each job, request, or job that was taken back.
LEAST_LEVELS = {"arq": logging.ERROR, "uvicorn.access": logging.WARNING, "httpx": logging.WARNING}
COMPACT = json.JSONEncoder(ensure_ascii=False, default=str, separators=(",", ":"))


class LineWriter:
    """Makes the lines of one process, and writes them: structlog's last processor, and its logger.

    No logger of Python's needs to know its handlers.
    """

    def __init__(self, process: str, handlers: Sequence[logging.Handler]) -> None:
        self._process = process
        self._handlers = handlers

    def __call__(self, _logger: object, level: str, fields: structlog.typing.EventDict) -> str:
        return encode({**self._common(_now(), level, fields.pop("event")), **fields})

    def write(self, lines: str) -> None:
        """Write one line or several to each handler, by one call; report on stderr what cannot be."""
        record = logging.makeLogRecord({"msg": lines})
        for handler in self._handlers:
            handler.handle(record)

    info = warning = error = critical = write

    def write_many(self, event: str, rows: Sequence[tuple[str, Mapping[str, object]]]) -> None:
        """Make and write a line for each level and fields; they share one timestamp.

        What is the same in all of them is encoded once.
        """
        now, key = _now(), encode(next(iter(rows[0][1])))
        lines = []
        for level, run in itertools.groupby(rows, operator.itemgetter(0)):
            begin = encode(self._common(now, level, event))[:-1] + ","
            fields = encode([fields for _, fields in run])[2:-1]
            # Quotation marks within a value are escaped, so only between two lines can this stand.
            lines.append(begin + fields.replace(f"}},{{{key}:", f"}}\n{begin}{key}:"))
        self.write("\n".join(lines))

    def close(self) -> None:
        for handler in self._handlers:
            handler.close()

    def _common(self, now: str, level: str, event: str) -> dict[str, object]:
        return {
            "timestamp": now,
            "level": level,
            "event": event,
            "process": self._process,
            "schema_version": LOG_VERSION,
        }


def encode(value: object) -> str:
    """Return the value as JSON on one line; what JSON has no form for becomes its text.

    What a terminal would obey is escaped: its lines are seen at the terminal where a process was started.
    """
    try:
        line = orjson.dumps(value, default=str).decode()
    except orjson.JSONEncodeError:  # half a surrogate pair, a number beyond 64 bits
        line = COMPACT.encode(value)
    if line.isprintable():
        return line
    return "".join(letter if letter.isprintable() else json.dumps(letter)[1:-1] for letter in line)


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")


class LogStreamHandler(logging.StreamHandler[TextIO]):
    """Writes records to a standard stream; reports on stderr, once, that they cannot be written."""

    def __init__(self, stream: TextIO) -> None:
        super().__init__(patient(stream))
        self._is_failing = False

    def emit(self, record: logging.LogRecord) -> None:
        super().emit(record)
        failure = self.stream.take_failure() if isinstance(self.stream, Patient) else None
        if failure is not None and not self._is_failing and sys.stderr is not None:
            print(f"Log lines are lost: {self.stream.name}: {failure.strerror}.", file=sys.stderr)  # noqa: T201
        self._is_failing = failure is not None


class LibraryHandler(logging.Handler):
    """Makes a `library_message` of what a library logs: its words are values, and it adds no field."""

    def __init__(self, lines: LineWriter) -> None:
        super().__init__(logging.INFO)
        self._lines = lines

    def emit(self, record: logging.LogRecord) -> None:
        """Log the record as one of our events; report on stderr what cannot be rendered."""
        try:
            logger.log(
                min(record.levelno // 10 * 10, logging.CRITICAL),
                "library_message",
                logger=record.name,
                message=record.getMessage(),
                **_stacks(record),
            )
        except Exception:  # noqa: BLE001 - logging must not fail its caller
            self.handleError(record)

    def close(self) -> None:
        self._lines.close()
        super().close()


def _stacks(record: logging.LogRecord) -> dict[str, str]:
    stacks = {}
    if record.exc_info and record.exc_info[0]:
        stacks["exception"] = logging.Formatter().formatException(record.exc_info)
    if record.stack_info:
        stacks["stack"] = record.stack_info
    return stacks


def configure_logging(process: str, log_file: Path | None, stream: TextIO | None) -> None:
    """Send everything this process logs, libraries included, to `stream` and `log_file` as JSON lines.

    Args:
        process: `api`, `worker` or the command's name; each line says which wrote it.
        log_file: appended to; its directory must exist.
        stream: None when a person is at the terminal, who sees something better.

    Raises:
        SettingsError: the file cannot be written.

    """
    try:
        handlers: list[logging.Handler] = [] if log_file is None else [LogFileHandler(log_file)]
    except OSError as error:
        msg = f"LOG_FILE: {log_file} cannot be written: {error.strerror}"
        raise SettingsError(msg) from None
    if stream is not None:  # the second, because it may block, and the process be killed meanwhile
        handlers.append(LogStreamHandler(stream))
    lines = LineWriter(process, handlers)
    structlog.configure(
        processors=[lines],
        wrapper_class=structlog.make_filtering_bound_logger(logging.INFO),
        logger_factory=lambda *_: lines,
        cache_logger_on_first_use=False,
    )
    logging.basicConfig(level=logging.INFO, handlers=[LibraryHandler(lines)], force=True)
    logging.captureWarnings(capture=True)
    for name in ("uvicorn", "uvicorn.error", "uvicorn.access"):
        logging.getLogger(name).handlers.clear()
        logging.getLogger(name).propagate = True
    for name, level in LEAST_LEVELS.items():
        logging.getLogger(name).setLevel(level)


def log_many(event: str, rows: Sequence[tuple[str, Mapping[str, object]]]) -> None:
    """Log one event of this name for each row, at a fraction of what as many calls of a logger cost.

    The lines are those that a logger would write, but they share one timestamp. Where the lines do not
    go to `configure_logging`'s handlers, as in tests that capture them, each is a call of a logger.

    Args:
        event: the name, out of the contract.
        rows: the level (`info`, `warning`, `error` or `critical`) and the fields of each. All begin with the
            same field, and no value holds an object that begins so.

    """
    last = structlog.get_config()["processors"][-1]
    if not isinstance(last, LineWriter):
        for level, fields in rows:
            getattr(logger, level)(event, **fields)
    elif rows:
        last.write_many(event, rows)
