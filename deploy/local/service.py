"""What the embedded PostgreSQL and Valkey have in common: a directory, a password, a port, a process."""

import fcntl
import os
import random
import secrets
import signal
import socket
import subprocess
import time
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from types import TracebackType
from typing import ClassVar, Self

from deploy.local.children import OURSELVES, Guise, end_leftover, tied_to_us
from deploy.local.errors import LocalError

LOOPBACK = "127.0.0.1"
# Below the range from which kernels pick ports for outgoing connections: there, a client of a stopped
# server could be given the server's own port, and be connected to itself.
PORTS = range(20_000, 32_000)
START_ATTEMPTS = 20
# In the log of a server that may well start a moment later: on another port, or after the last
# sessions of one that was killed have gone.
PASSING_TROUBLE = ("Address already in use", "shared memory block")
START_PATIENCE_SECONDS = 60
STOP_PATIENCE_SECONDS = 20
SHOWN_LOG_LINES = 15


@contextmanager
def hold(directory: Path) -> Iterator[None]:
    """Create the directory if need be and keep it to ourselves; the kernel frees it when we die.

    Raises:
        LocalError: another process holds it, or it cannot be written to.

    """
    try:
        directory.mkdir(parents=True, exist_ok=True, mode=0o700)
        lock = (directory / "lock").open("a+")
    except OSError as error:
        msg = f"{directory} cannot be used: {error.strerror}. Delete it or choose another directory."
        raise LocalError(msg) from None
    with lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            lock.seek(0)
            msg = (
                f"{directory} is in use by process {lock.read().strip() or 'unknown'}. "
                "Stop that process first or choose another directory."
            )
            raise LocalError(msg) from None
        lock.truncate(0)
        lock.write(str(os.getpid()))
        lock.flush()
        yield


def free_port() -> int:
    """Pick a port of the loopback address that is free just now."""
    while True:
        port = random.SystemRandom().choice(PORTS)
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind((LOOPBACK, port))
            except OSError:
                continue
            return port


def write_secret(file: Path, text: str) -> None:
    """Write a file that only its owner can read, whole or not at all."""
    unfinished = file.with_suffix(".unfinished")
    unfinished.unlink(missing_ok=True)
    with os.fdopen(os.open(unfinished, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600), "w") as new:
        new.write(text)
    unfinished.rename(file)


def last_lines(log: Path) -> str:
    lines = log.read_text(encoding="utf-8", errors="replace").splitlines()
    return "\n".join(f"  {line}" for line in lines[-SHOWN_LOG_LINES:])


class Service(ABC):
    """A server of our own on a loopback port, for as long as the `with` block; it never outlives us.

    One directory serves one process at a time; everything the service keeps lies in it. The
    password is made at the first start and stands in a file that only its owner can read.
    """

    name: ClassVar[str]
    url_variable: ClassVar[str]  # that names such a server to the API and the worker
    stop_signal: ClassVar[signal.Signals]

    def __init__(self, directory: Path) -> None:
        self.directory = directory.absolute()
        self.port: int | None = None
        self.guise: Guise = OURSELVES
        self.environment: Mapping[str, str] = {**os.environ, "LC_ALL": "C"}
        self.log = self.directory / "log"
        self.password_file = self.directory / "password"
        self._pid_file = self.directory / "pid"
        self._process: subprocess.Popen[bytes] | None = None
        self._held = ExitStack()

    @property
    @abstractmethod
    def url(self) -> str:
        """The address, password included."""

    @abstractmethod
    def prepare(self) -> None:
        """Make the directory ready for the first start; called before every one."""

    @abstractmethod
    def command(self, port: int) -> list[str]:
        """Return the command that serves on this port in the foreground."""

    @abstractmethod
    def answers(self, port: int) -> bool:
        """Return whether a client with the password was served; wait at most a few seconds."""

    @property
    def pid(self) -> int:
        if self._process is None:
            raise LocalError(f"{self.name} does not run.")
        return self._process.pid

    @property
    def password(self) -> str:
        return self.password_file.read_text()

    def __enter__(self) -> Self:
        with ExitStack() as undo:
            undo.enter_context(hold(self.directory))
            end_leftover(self._pid_file, str(self.directory), self.stop_signal)
            if not self.password_file.exists():
                write_secret(self.password_file, secrets.token_urlsafe(24))
            undo.callback(self.stop)
            self.start()
            self._held = undo.pop_all()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._held.close()

    def start(self) -> None:
        """Return when a client was served: on a free port, and every time after on the same one.

        A server that still runs is stopped before.

        Raises:
            LocalError: the server does not come up; the message shows the end of its log.

        """
        self.stop()
        self.prepare()
        for _ in range(START_ATTEMPTS):
            port = self.port or free_port()
            if self._serves(port):
                self.port = port
                return
            self.stop()
            if not any(trouble in self.log.read_text(errors="replace") for trouble in PASSING_TROUBLE):
                break
            time.sleep(0.1)
        raise self.failure(f"{self.name} did not start.")

    def failure(self, what: str) -> LocalError:
        """Make the error that names what happened and what to do, and shows the end of the log."""
        return LocalError(
            f"{what} The end of {self.log}:\n{last_lines(self.log)}\n"
            f"Delete {self.directory} to begin anew without its data, or set {self.url_variable} to a "
            "server of yours."
        )

    def check(self) -> None:
        """Return when the server still runs.

        Raises:
            LocalError: it ended without having been stopped.

        """
        if self._process is not None and self._process.poll() is not None:
            raise self.failure(f"{self.name} ended unexpectedly.")

    def stop(self) -> None:
        """End the server in an orderly way, by force if it does not; fine when it does not run."""
        if self._process is None:
            return
        for request in (self.stop_signal, signal.SIGQUIT, signal.SIGKILL):
            self._process.send_signal(request)
            self._process.send_signal(signal.SIGCONT)  # it may have been frozen
            try:
                self._process.wait(STOP_PATIENCE_SECONDS)
            except subprocess.TimeoutExpired:
                continue
            break
        self._process = None
        self._pid_file.unlink(missing_ok=True)

    def _serves(self, port: int) -> bool:
        """Launch the server; return whether it came to serve before it ended or our patience did."""
        with self.log.open("wb") as log:
            self._process = subprocess.Popen(
                tied_to_us(self.command(port), self.stop_signal.name.removeprefix("SIG"), self.guise),
                cwd=self.directory,
                env=self.environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,  # Ctrl-C is for us; we end the servers after their clients
            )
        self._pid_file.write_text(str(self._process.pid))
        deadline = time.monotonic() + START_PATIENCE_SECONDS
        while self._process.poll() is None and time.monotonic() < deadline:
            if self.answers(port):
                return True
            time.sleep(0.02)
        return False
