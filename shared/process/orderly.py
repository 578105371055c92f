"""How every process of ours ends: with a status, and where something went wrong with a sentence about it."""

import contextlib
import errno
import sys
from collections.abc import Iterator

from shared.process.printable import printable
from shared.process.streams import Patient, use_patient_streams

SUCCESS, FAILURE, WRONG_USAGE = 0, 1, 2
LONGEST_SENTENCE = 4000


@contextlib.contextmanager
def orderly() -> Iterator[None]:
    """Lend the block standard streams that fail nobody, and end the process with it.

    The status is that of the block's SystemExit, or 0; 1 after an interrupt, any other exception, or where
    what the block printed could not be written. A pipe that nobody reads any longer is no failure: who closed
    it has seen enough.
    """
    use_patient_streams()
    status = FAILURE
    try:
        yield
        status = SUCCESS
    except SystemExit as end:
        status = _status_of(end)
    except KeyboardInterrupt:
        complain("Interrupted.")
    except Exception as error:  # noqa: BLE001 - the last that can say something
        from shared.process.accident import accident  # noqa: PLC0415 - --help has no need of it

        complain(accident(error))
    sys.exit(status if _is_delivered() else status or FAILURE)


def complain(*lines: str) -> None:
    """Print lines on stderr, of bounded length and without anything that a terminal would obey."""
    for line in lines:
        print(printable(line, LONGEST_SENTENCE), file=sys.stderr)  # noqa: T201 - a terminal is where it goes


def _status_of(end: SystemExit) -> int:
    if end.code is None or isinstance(end.code, int):
        return end.code or SUCCESS
    complain(*str(end.code).splitlines())
    return FAILURE


def _is_delivered() -> bool:
    failure = sys.stdout.take_failure() if isinstance(sys.stdout, Patient) else None
    if failure is None or failure.errno == errno.EPIPE:
        return True
    complain(f"The result could not be written to standard output: {failure.strerror}.")
    return False
