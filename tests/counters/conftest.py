import io
import logging
from collections.abc import Iterator

import pytest
import structlog

from shared.logs.setup import LineWriter


class Nowhere(io.StringIO):
    """Takes the lines of a log and keeps none."""

    def write(self, text: str) -> int:
        return len(text)


@pytest.fixture(autouse=True)
def _lines_as_in_a_worker() -> Iterator[None]:
    """Let every line be made, as `configure_logging` has it, and go nowhere."""
    configured = structlog.get_config()
    lines = LineWriter("worker", [logging.StreamHandler(Nowhere())])
    structlog.configure(
        processors=[lines],
        wrapper_class=structlog.make_filtering_bound_logger(logging.INFO),
        logger_factory=lambda *_: lines,
        cache_logger_on_first_use=False,
    )
    yield
    structlog.configure(**configured)
