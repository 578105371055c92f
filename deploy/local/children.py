"""Processes that end with the one that started them, and that need not be root."""

import contextlib
import functools
import os
import pwd
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

# Exits 0 where initdb, which looks at everything it needs, would work and the directory can be written.
CAN_WORK = 'cd "$2" && test -w . && exec "$1" --show --pgdata "$2/data" >/dev/null'

# Containers forbid namespaces. This one capability lets nobody into a clone that only root may enter;
# the bit makes access(2), with which PostgreSQL looks for its own files, regard the capability.
INTO_PRIVATE_PLACES = (
    "--inh-caps=-all,+dac_override",
    "--ambient-caps=-all,+dac_override",
    "--securebits=+no_setuid_fixup",
)


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


def hand_over(directory: Path, owner: tuple[int, int] | None) -> None:
    """Give the directory and everything in it to this user and group; None leaves it as it is."""
    if owner is None:
        return
    for path in (directory, *directory.rglob("*")):
        if path.lstat().st_uid != owner[0]:
            os.chown(path, *owner, follow_symlinks=False)


def guises() -> list[Guise]:
    """List who we can try to be, the least intrusive first."""
    try:
        nobody = pwd.getpwnam("nobody")
    except KeyError:
        nobody = None
    if nobody is None or not ON_LINUX:
        return [OURSELVES]
    # No longer root, nor anybody without a name; yet to all others, and on disk, the same as before.
    renamed = ("unshare", "-U", f"--map-user={nobody.pw_uid}", f"--map-group={nobody.pw_gid}", "--")
    in_namespace = Guise("nobody, in a user namespace", namespace=renamed, owner=(os.geteuid(), os.getegid()))
    if os.geteuid() != 0:
        return [OURSELVES, in_namespace]
    changed = (f"--reuid={nobody.pw_uid}", f"--regid={nobody.pw_gid}", "--clear-groups", *INTO_PRIVATE_PLACES)
    return [OURSELVES, in_namespace, Guise("nobody", identity=changed, owner=(nobody.pw_uid, nobody.pw_gid))]


@functools.cache
def unprivileged(initdb: Path, directory: Path) -> Guise:
    """Return a guise in which PostgreSQL runs and can write to the directory: it was tried.

    PostgreSQL wants neither root nor a user whose name the system does not know.

    Raises:
        LocalError: there is none; the message says why and what to do instead.

    """
    complaints = []
    for guise in guises():
        hand_over(directory, guise.owner)
        attempt = tied_to_us(["/bin/sh", "-c", CAN_WORK, "sh", str(initdb), str(directory)], "KILL", guise)
        tried = subprocess.run(attempt, capture_output=True, text=True, check=False)
        if tried.returncode == 0:
            return guise
        reason = tried.stderr.strip().partition("\n")[0] or "may not write to the directory"
        complaints.append(f"  as {guise.description}: {reason}")
    msg = "\n".join(
        (
            "PostgreSQL does not run here:",
            *complaints,
            "Run this as an ordinary user, or set DATABASE_URL to a server of yours.",
        )
    )
    raise LocalError(msg)


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
