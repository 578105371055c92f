"""JSON lines: one object per line, to stdout and, where asked for, to a file.

The value of `event` is a fixed name; everything that varies is a field of its own.
"""

import logging
from pathlib import Path
from typing import TextIO

import structlog

SCHEMA_VERSION = 1
# Less than this would drown our lines: one for each job, request, or job that was taken back.
LEAST_LEVELS = {"arq": logging.ERROR, "uvicorn.access": logging.WARNING, "httpx": logging.WARNING}


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
        handlers.append(logging.FileHandler(log_file, encoding="utf-8"))
    for handler in handlers:
        handler.setFormatter(formatter)
    logging.basicConfig(level=logging.INFO, handlers=handlers, force=True)
    for name in ("uvicorn", "uvicorn.error", "uvicorn.access"):
        logging.getLogger(name).handlers.clear()
        logging.getLogger(name).propagate = True
    for name, level in LEAST_LEVELS.items():
        logging.getLogger(name).setLevel(level)
