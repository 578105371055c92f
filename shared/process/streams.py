"""Standard streams that fail nobody: closed ones lead nowhere; what cannot be written is lost, and noted."""

import io
import os
import select
import sys
from typing import TYPE_CHECKING, TextIO

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer

STANDARD = range(3)


class Patient(io.TextIOWrapper):
    """Text that goes to a file at once. Where that fails it is lost, and `take_failure` returns why.

    What an encoding lacks is written as a backslash and a number. Closing this leaves the descriptor open.
    """

    def __init__(self, descriptor: int, encoding: str, name: str) -> None:
        self._sink = _Sink(descriptor, name)
        super().__init__(self._sink, encoding, "backslashreplace", write_through=True)

    def take_failure(self) -> OSError | None:
        """Return why something was lost since the last call, or None."""
        failure, self._sink.failure = self._sink.failure, None
        return failure

    @property
    def is_abandoned(self) -> bool:
        """Return whether it is a pipe that nobody reads any longer."""
        return isinstance(self._sink.failure, BrokenPipeError)


class _Sink(io.RawIOBase):
    failure: OSError | None = None

    def __init__(self, descriptor: int, name: str) -> None:
        self._descriptor = descriptor
        self.name = name

    def writable(self) -> bool:
        return True

    def fileno(self) -> int:
        return self._descriptor

    def isatty(self) -> bool:
        return os.isatty(self._descriptor)

    def write(self, data: "ReadableBuffer", /) -> int:
        view = memoryview(data).cast("B")
        rest = view
        while rest:
            try:
                rest = rest[os.write(self._descriptor, rest) :]
            except BlockingIOError:  # another process made it so, with which we share it
                select.select([], [self._descriptor], [])
            except OSError as error:
                self.failure = error
                break
        return len(view)


def patient(stream: TextIO) -> TextIO:
    """Return the stream, or where it is a file a patient one that writes to the same."""
    if isinstance(stream, Patient):
        return stream
    try:
        descriptor = stream.fileno()
    except (OSError, ValueError):  # io.UnsupportedOperation is both
        return stream
    stream.flush()
    return Patient(descriptor, stream.encoding, stream.name)


def open_closed() -> list[int]:
    """Open those of the three standard descriptors that are closed on /dev/null, and return them.

    Else the next file that the process opens becomes one of them: libuv aborts when its own is, and a message
    would be written into whatever it is.
    """
    closed = [number for number in STANDARD if _is_closed(number)]
    for number in closed:
        opened = os.open(os.devnull, os.O_RDWR)
        if opened == number:
            os.set_inheritable(opened, True)  # noqa: FBT003 - its own signature
        else:
            os.dup2(opened, number)
            os.close(opened)
    return closed


def _is_closed(number: int) -> bool:
    try:
        os.fstat(number)
    except OSError:
        return True
    return False


def use_patient_streams() -> None:
    """Make all three standard streams usable, however they were started; call it before anything else."""
    opened = open_closed()
    if sys.stdin is None:
        sys.stdin = open(_descriptor(0, opened), closefd=False)  # noqa: SIM115 - while we live
    if isinstance(sys.stdin, io.TextIOWrapper):
        sys.stdin.reconfigure(errors="backslashreplace")
    sys.stdout = _written(sys.stdout, 1, opened)
    sys.stderr = _written(sys.stderr, 2, opened)


def _written(stream: TextIO | None, number: int, opened: list[int]) -> TextIO:
    if stream is None:
        return Patient(_descriptor(number, opened), "utf-8", os.devnull)
    return patient(stream)


def _descriptor(number: int, opened: list[int]) -> int:
    """Return the stream's own descriptor, unless a library has taken that for something of its own."""
    return number if number in opened else os.open(os.devnull, os.O_RDWR)
