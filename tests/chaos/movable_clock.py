"""`python -m tests.chaos.movable_clock FILE MODULE [ARGUMENTS]`: run a module whose clock can be moved.

What moves is the time of day as this process's Python code asks for it: `time.time`, `time.time_ns` and
`datetime.now`. The monotonic clock stays, as when a machine's clock is corrected, and the kernel's too.
"""

import datetime as dt
import importlib
import mmap
import runpy
import struct
import sys
import time
from pathlib import Path

RealDatetime = dt.datetime
OFFSET = struct.Struct("d")  # seconds; the whole file


class MovableClock:
    """The file by which the suite moves the clock of a running process."""

    def __init__(self, file: Path) -> None:
        self.file = file
        self.offset_seconds = 0.0
        file.write_bytes(OFFSET.pack(0.0))

    def move(self, offset_seconds: float) -> None:
        """Let the process be so much ahead of everybody else, from this moment on."""
        self.offset_seconds = offset_seconds
        with self.file.open("r+b") as file:
            file.write(OFFSET.pack(offset_seconds))


def install(file: Path) -> None:
    """Replace the clocks of this process; call it before anything else imports them by name."""
    with file.open("rb") as opened:
        shared = mmap.mmap(opened.fileno(), OFFSET.size, prot=mmap.PROT_READ)
    real_time, real_time_ns = time.time, time.time_ns
    importlib.import_module("asyncpg")  # its C code wants datetime as it is

    def offset() -> float:
        seconds: float = OFFSET.unpack(shared)[0]
        return seconds

    class AnyDatetime(type):
        """Let what C code makes, and what was made before, pass as a `MovedDatetime`."""

        def __instancecheck__(cls, instance: object) -> bool:
            return isinstance(instance, RealDatetime)

    class MovedDatetime(RealDatetime, metaclass=AnyDatetime):
        @classmethod
        def now(cls, tz: dt.tzinfo | None = None) -> RealDatetime:  # type: ignore[override]
            return RealDatetime.fromtimestamp(time.time(), tz)

    vars(dt)["datetime"] = MovedDatetime
    time.time = lambda: real_time() + offset()
    time.time_ns = lambda: real_time_ns() + int(offset() * 1_000_000_000)


if __name__ == "__main__":
    install(Path(sys.argv[1]))
    del sys.argv[:2]
    runpy.run_module(sys.argv[0], run_name="__main__", alter_sys=True)
