"""Processes that end with the one that started them."""

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from deploy.local.errors import LocalError

ON_LINUX = sys.platform == "linux"
STALE_PATIENCE_SECONDS = 20

# The kernel signals a child whose parent dies later, not one whose parent is dead already.
UNLESS_ORPHANED = '[ "$PPID" = "$0" ] && exec "$@"'


@dataclass(frozen=True)
class Guise:
    """Who a child is: the words that make it so, and who must own the files that it writes to."""

    description: str
    namespace: tuple[str, ...] = ()
    identity: tuple[str, ...] = ()
    owner: tuple[int, int] | None = None


OURSELVES = Guise("the current user")


def tied_to_us(command: Sequence[str], death_signal: str, guise: Guise = OURSELVES) -> list[str]:
    """Return the command that runs `command` in this guise and ends when we do, even by SIGKILL.

    The kernel watches the thread that starts the command, so start it from the main thread. Only
    Linux offers this; elsewhere the command comes back as it was, and `end_leftover` at the next
    start is what removes a child that outlived us.

    Args:
        command: the program and its arguments; the process keeps the id that it was started with.
        death_signal: the name, without SIG, of the signal that the child gets when we die.
        guise: who the child is to be.

    Raises:
        LocalError: the system lacks a program for it; the message says what to install.

    """
    if not ON_LINUX:
        return list(command)
    for program in ("setpriv", *guise.namespace[:1]):
        if shutil.which(program) is None:
            raise LocalError(f"The command {program} is missing. Install util-linux, which contains it.")
    bond = ("setpriv", *guise.identity, "--pdeathsig", death_signal, "--")
    return [*guise.namespace, *bond, "/bin/sh", "-c", UNLESS_ORPHANED, str(os.getpid()), *command]


def command_of(pid: int) -> str:
    """Return the command line of a process, or nothing when there is no such process."""
    if ON_LINUX:
        with contextlib.suppress(OSError):
            return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
        return ""
    shown = ["ps", "-ww", "-o", "command=", "-p", str(pid)]
    return subprocess.run(shown, capture_output=True, text=True, check=False).stdout


def end_leftover(pid_file: Path, mark: str, stop_signal: signal.Signals) -> None:
    """End the process that an earlier start left behind, if it is still there.

    Args:
        pid_file: holds its id.
        mark: what its command line must contain; the id may be another process's by now.
        stop_signal: what it is asked to end with before it is killed.

    """
    try:
        pid = int(pid_file.read_text())
    except (FileNotFoundError, ValueError):
        return
    deadline = time.monotonic() + STALE_PATIENCE_SECONDS
    while mark in command_of(pid):
        overdue = time.monotonic() > deadline
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL if overdue else stop_signal)
        time.sleep(0.1)
    pid_file.unlink()
