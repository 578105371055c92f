"""Run a command as the image's user, on a read-only root of the system, Python and what the image copies.

Called by root: contained.py ROOT APP COMMAND...; ROOT is an empty directory, APP becomes /app. Nothing else
of this machine is to be seen, the checkout least of all. The process keeps its id.
"""

import ctypes
import os
import subprocess
import sys
from pathlib import Path

CLONE_NEWNS = 0x00020000
USER = 10_001
SYSTEM = ("/usr", "/bin", "/sbin", "/lib", "/lib64", "/etc", "/dev", "/proc")
UNPRIVILEGED = (
    *("setpriv", f"--reuid={USER}", f"--regid={USER}", "--clear-groups", "--inh-caps=-all"),
    *("--bounding-set=-all", "--no-new-privs", "--pdeathsig=KILL", "--"),
)


def mount(*words: str | Path) -> None:
    subprocess.run(["mount", *words], check=True)  # noqa: S607 - util-linux, wherever it is


def show(source: Path, root: Path, at: str | Path | None = None) -> None:
    """Let the directory be seen in the new root, where it is or elsewhere; a link stays a link."""
    place = root / str(at or source).lstrip("/")
    if place.exists() or not source.exists():
        return
    place.parent.mkdir(parents=True, exist_ok=True)
    if source.is_symlink():
        place.symlink_to(source.readlink())
        return
    place.mkdir()
    mount("--rbind", source, place)


def mounts_below(root: Path) -> list[str]:
    lines = Path("/proc/self/mountinfo").read_text(encoding="utf-8").splitlines()
    places = [line.split()[4].encode().decode("unicode_escape") for line in lines]
    return [place for place in places if Path(place).is_relative_to(root)]


def main(root: Path, app: Path, command: list[str]) -> None:
    if ctypes.CDLL(None, use_errno=True).unshare(CLONE_NEWNS) != 0:
        sys.exit(os.strerror(ctypes.get_errno()))
    mount("--make-rprivate", "/")
    mount("-t", "tmpfs", "-o", "mode=755", "image", root)
    for name in SYSTEM:
        show(Path(name), root)
    for prefix in (sys.base_prefix, sys.prefix):
        show(Path(prefix).resolve(), root)
    show(app, root, at="/app")
    for place in mounts_below(root):
        mount("-o", "remount,bind,ro", place)
    os.chroot(root)
    os.chdir("/app")
    os.execvp(UNPRIVILEGED[0], [*UNPRIVILEGED, *command])  # noqa: S606 - it becomes the command


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3:])
