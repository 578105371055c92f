"""A terminal with a shell in it, as a reader has one: what is typed runs, Ctrl-C interrupts it."""

import contextlib
import os
import re
import signal
import subprocess
import termios
import threading
import time
from collections.abc import Iterator, Mapping
from pathlib import Path

from deploy.local.children import tied_to_us
from tests.processes import HANG_SECONDS

ROWS_AND_COLUMNS = (50, 110)
CTRL_C = b"\x03"
# The prompt says how the last command ended; $? is expanded when it is shown.
PROMPT_VARIABLE = r"\n<ready $?>\n"
PROMPT = re.compile(r"\n<ready (\d+)>\n")
# What a terminal obeys and does not show.
CONTROL = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]|\r")


@contextlib.contextmanager
def interruptible() -> Iterator[None]:
    """Start children that obey Ctrl-C even where we were started to ignore it, as in a background."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


class Terminal:
    """An interactive bash on a pseudo-terminal that knows no colours and no cursor."""

    def __init__(self, directory: Path, environment: Mapping[str, str]) -> None:
        self._ours, theirs = os.openpty()
        termios.tcsetwinsize(theirs, ROWS_AND_COLUMNS)
        self._silence(theirs)
        shell = ["setsid", "--ctty", "bash", "--noprofile", "--norc", "--noediting", "-i"]
        with interruptible():
            self._shell = subprocess.Popen(
                tied_to_us(shell, "HUP"),
                cwd=directory,
                env={**environment, "PS1": PROMPT_VARIABLE, "PS2": "", "TERM": "dumb"},
                stdin=theirs,
                stdout=theirs,
                stderr=theirs,
            )
        os.close(theirs)
        self._said = ""
        self._read_so_far = 0
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()
        self.until_ready()

    @staticmethod
    def _silence(terminal: int) -> None:
        """Let the terminal not show what is typed."""
        attributes = termios.tcgetattr(terminal)
        attributes[3] &= ~termios.ECHO
        termios.tcsetattr(terminal, termios.TCSANOW, attributes)

    def _read(self) -> None:
        with contextlib.suppress(OSError):  # the shell has gone
            while chunk := os.read(self._ours, 65_536):
                self._said += CONTROL.sub("", chunk.decode(errors="replace"))

    @property
    def unread(self) -> str:
        """What was shown and not yet read."""
        return self._said[self._read_so_far :]

    def read(self, length: int) -> None:
        """Count so many characters of what is unread as read."""
        self._read_so_far += length

    def type(self, line: str) -> None:
        """Type a line and Enter."""
        os.write(self._ours, f"{line}\n".encode())

    def interrupt(self) -> None:
        """Type Ctrl-C: the terminal interrupts whatever runs in its foreground."""
        os.write(self._ours, CTRL_C)

    def until_ready(self) -> tuple[str, int]:
        """Wait for the prompt; return what was shown before it, and the last command's exit status."""
        deadline = time.monotonic() + HANG_SECONDS
        while (prompt := PROMPT.search(self.unread)) is None:
            assert time.monotonic() < deadline, f"no prompt:\n{self.unread}"
            time.sleep(0.01)
        shown = self.unread[: prompt.start()]
        self.read(prompt.end())
        return shown, int(prompt[1])

    def run(self, command: str) -> tuple[str, int]:
        """Type a command; return what it showed and its exit status."""
        self.type(command)
        return self.until_ready()

    def close(self) -> None:
        """Hang up: the shell passes that on to what still runs in it, and ends."""
        self._shell.send_signal(signal.SIGHUP)
        try:
            self._shell.wait(HANG_SECONDS)
        finally:
            self._shell.kill()
            self._shell.wait(HANG_SECONDS)
            self._reader.join(HANG_SECONDS)
            os.close(self._ours)


@contextlib.contextmanager
def terminal(directory: Path, environment: Mapping[str, str]) -> Iterator[Terminal]:
    """Open a terminal for as long as the block."""
    opened = Terminal(directory, environment)
    try:
        yield opened
    finally:
        opened.close()
