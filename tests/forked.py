"""Python programs that start with the product's imports behind them: forked from a process that has them.

The imports of `python -m worker` cost a second of processor time, a fork a fiftieth of it. What is forked is
a process of its own, with its own environment, directory and standard streams; it is signalled and killed by
its id, and dies with us. Where a start is itself the matter, or memory is, use `subprocess`.
"""

import atexit
import ctypes
import io
import multiprocessing
import os
import runpy
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from multiprocessing import connection, forkserver, reduction
from pathlib import Path
from typing import IO, Any

ROOT = Path(__file__).parent.parent
PR_SET_PDEATHSIG = 1

_context = multiprocessing.get_context("forkserver")
_context.set_forkserver_preload(["tests.imported", "tests.forked"])
_lock = threading.Lock()  # multiprocessing reads the status of any child whenever it starts another


class Forked:
    """A running `python ARGUMENTS`, as far as tests need what `subprocess.Popen` offers."""

    def __init__(
        self,
        arguments: Sequence[str],
        env: Mapping[str, str],
        *,
        cwd: Path = ROOT,
        stdin: int | IO[bytes] = subprocess.DEVNULL,
        stdout: int | IO[bytes] = subprocess.PIPE,
        stderr: int | IO[bytes] = subprocess.STDOUT,
    ) -> None:
        """Start `python ARGUMENTS`, which begin with `-m MODULE` or the path of a script.

        Args:
            arguments: what follows `python` on a command line.
            env: the whole environment.
            cwd: the directory in which it starts.
            stdin: a file, or DEVNULL.
            stdout: a file, DEVNULL, or PIPE: then `self.stdout` reads it as text.
            stderr: a file, DEVNULL, or STDOUT.

        """
        self.args = ["python", *arguments]
        self.stdout: IO[str] | None = None
        given = [stdin, stdout, stderr]
        reader = writer = None
        if stdout == subprocess.PIPE:
            reader, writer = os.pipe()
            given[1] = writer
            self.stdout = os.fdopen(reader, encoding="utf-8", errors="replace")
        with open(os.devnull, "r+b") as nothing:  # noqa: PTH123 - a file that is only opened
            streams = [_Stream(given[1] if it == subprocess.STDOUT else it, nothing) for it in given]
            asked = (list(map(str, arguments)), dict(env), str(cwd), streams)
            self._process = _context.Process(target=_become, args=asked, daemon=True)
            with _lock:
                self._process.start()
        if writer is not None:
            os.close(writer)

    @property
    def pid(self) -> int:
        assert self._process.pid is not None
        return self._process.pid

    @property
    def returncode(self) -> int | None:
        return self.poll()

    def poll(self) -> int | None:
        """Return its exit status, less than 0 for a signal, or None while it runs."""
        with _lock:
            return self._process.exitcode

    def wait(self, timeout: float | None = None) -> int:
        """Return its exit status once it has ended, or raise subprocess.TimeoutExpired."""
        connection.wait([self._process.sentinel], timeout)
        status = self.poll()
        if status is None:
            raise subprocess.TimeoutExpired(self.args, timeout or 0)
        return status

    def send_signal(self, number: int) -> None:
        """Send it a signal, unless it has ended."""
        if self.poll() is None:
            os.kill(self.pid, number)

    def terminate(self) -> None:
        self.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)


def run(
    arguments: Sequence[str],
    env: Mapping[str, str],
    *,
    cwd: Path = ROOT,
    input: str = "",  # noqa: A002 - as subprocess.run
    timeout: float | None = None,
    stderr: int | None = None,
) -> subprocess.CompletedProcess[str]:
    """Run `python ARGUMENTS` to its end and return its status and what it wrote, as `subprocess.run` does.

    With stderr=subprocess.STDOUT both streams are in `stdout`, in the order in which they were written.
    """
    with (
        tempfile.TemporaryFile() as given,
        tempfile.TemporaryFile() as out,
        tempfile.TemporaryFile() as errors,
    ):
        given.write(input.encode())
        given.seek(0)
        process = Forked(
            arguments, env, cwd=cwd, stdin=given, stdout=out, stderr=errors if stderr is None else stderr
        )
        try:
            status = process.wait(timeout)
        finally:
            process.kill()
        written = [_whole(file) for file in (out, errors)]
    return subprocess.CompletedProcess(process.args, status, *written)


def _whole(file: IO[bytes]) -> str:
    file.seek(0)
    return file.read().decode(errors="replace")


class _Stream:
    """A file that goes with a process to be: its descriptor there differs from ours."""

    def __init__(self, given: int | IO[bytes], nothing: IO[bytes]) -> None:
        if given == subprocess.DEVNULL:
            given = nothing
        self.number = given if isinstance(given, int) else given.fileno()

    def __reduce__(self) -> tuple[Callable[[Any], int], tuple[object]]:
        return _received, (reduction.DupFd(self.number),)


def _received(duplicate: Any) -> int:  # noqa: ANN401 - multiprocessing's own
    return int(duplicate.detach())


def _become(arguments: list[str], environment: dict[str, str], directory: str, streams: list[int]) -> None:
    """Be `python ARGUMENTS`, in the process that was forked for it."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    signal.signal(signal.SIGINT, signal.default_int_handler)  # the runner of the tests may ignore it
    os.close(vars(forkserver)["_forkserver"]._forkserver_alive_fd)  # noqa: SLF001 - or it would outlive us
    os.environ.clear()
    os.environ.update(environment)
    time.tzset()
    os.chdir(directory)
    for number, stream in enumerate(streams):
        os.dup2(stream, number)
    for stream in {*streams} - {0, 1, 2}:
        os.close(stream)
    sys.stdin = open(0, closefd=False)  # noqa: SIM115
    sys.stdout = _text(1)
    sys.stderr = _text(2, errors="backslashreplace")
    try:
        if arguments[0] == "-m":
            sys.argv = ["-m", *arguments[2:]]
            runpy.run_module(arguments[1], run_name="__main__", alter_sys=True)
        else:
            sys.argv = arguments
            runpy.run_path(arguments[0], run_name="__main__")
    finally:
        atexit._run_exitfuncs()  # noqa: SLF001 - multiprocessing leaves them out


def _text(number: int, errors: str = "strict") -> io.TextIOWrapper:
    at_once = bool(os.environ.get("PYTHONUNBUFFERED"))
    raw = open(number, "wb", 0, closefd=False)  # noqa: SIM115
    buffer = raw if at_once else io.BufferedWriter(raw)
    return io.TextIOWrapper(
        buffer,
        "utf-8",
        errors,
        write_through=at_once,
        line_buffering=raw.isatty() or number == 2,
    )
