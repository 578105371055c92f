"""Running as another user than root, for PostgreSQL, which refuses to run as root."""

import functools
import os
import pwd
import subprocess
from pathlib import Path

from deploy.local.children import ON_LINUX, OURSELVES, Guise, tied_to_us
from deploy.local.errors import LocalError

# Exits 0 where initdb, which looks at everything it needs, would work and the directory can be written.
CAN_WORK = 'cd "$2" && test -w . && exec "$1" --show --pgdata "$2/data" >/dev/null'

# Containers forbid namespaces. This one capability lets nobody into a clone that only root may enter;
# the bit makes access(2), with which PostgreSQL looks for its own files, regard the capability.
INTO_PRIVATE_PLACES = (
    "--inh-caps=-all,+dac_override",
    "--ambient-caps=-all,+dac_override",
    "--securebits=+no_setuid_fixup",
)


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
    # No longer root, nor a user without a name; yet to all others, and on disk, the same as before.
    renamed = ("unshare", "-U", f"--map-user={nobody.pw_uid}", f"--map-group={nobody.pw_gid}", "--")
    in_namespace = Guise("nobody, in a user namespace", namespace=renamed, owner=(os.geteuid(), os.getegid()))
    if os.geteuid() != 0:
        return [OURSELVES, in_namespace]
    changed = (f"--reuid={nobody.pw_uid}", f"--regid={nobody.pw_gid}", "--clear-groups", *INTO_PRIVATE_PLACES)
    return [OURSELVES, in_namespace, Guise("nobody", identity=changed, owner=(nobody.pw_uid, nobody.pw_gid))]


def what_stops(guise: Guise, initdb: Path, directory: Path) -> str | None:
    """Try to work in this guise, the directory handed over to it; return why it cannot be, or None."""
    try:
        hand_over(directory, guise.owner)
    except PermissionError as error:
        return f"{error.filename} cannot be handed over"
    attempt = tied_to_us(["/bin/sh", "-c", CAN_WORK, "sh", str(initdb), str(directory)], "KILL", guise)
    tried = subprocess.run(attempt, capture_output=True, text=True, check=False)
    if tried.returncode == 0:
        return None
    return tried.stderr.strip().partition("\n")[0] or f"may not write to {directory}"


@functools.cache
def unprivileged(initdb: Path, directory: Path) -> Guise:
    """Return a guise in which PostgreSQL runs and can write to the directory: it was tried.

    PostgreSQL wants neither root nor a user whose name the system does not know.

    Raises:
        LocalError: there is none; the message says why and what to do instead.

    """
    complaints = []
    for guise in guises():
        obstacle = what_stops(guise, initdb, directory)
        if obstacle is None:
            return guise
        complaints.append(f"  as {guise.description}: {obstacle}")
    advice = "Run this as an ordinary user, or set DATABASE_URL to a server of yours."
    raise LocalError("\n".join(("PostgreSQL does not run here:", *complaints, advice)))
