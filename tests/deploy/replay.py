"""Run a command in the tree of an image: with the rights of a container, on what its base image has.

    replay.py TREE --user 0 -- COMMAND...                     a step of the build, which may write to the tree
    replay.py TREE --user 10001 --read-only [--volume DIR:AT] -- COMMAND...    what a container starts

Called by root, because it mounts. The command itself runs in a user namespace whose root is the user 200000
of this machine, so it has no right over anything outside the tree, as in an engine without root. The process
keeps its id.
"""

import argparse
import ctypes
import os
import subprocess
import sys
from pathlib import Path

CLONE_NEWNS = 0x00020000
CLONE_NEWUSER = 0x10000000
FIRST_ID = 200_000  # what the root of the tree is outside; user N of the tree is this plus N
IDS = 65_536
MOUNTED = ("/usr/lib", "/dev", "/proc")


def enter(namespace: int) -> None:
    if ctypes.CDLL(None, use_errno=True).unshare(namespace) != 0:
        sys.exit(f"unshare: {os.strerror(ctypes.get_errno())}")


def mount(*words: str | Path) -> None:
    subprocess.run(["mount", *words], check=True)  # noqa: S607 - util-linux, wherever it is


def show(source: Path, tree: Path, at: str) -> None:
    place = tree / at.lstrip("/")
    place.mkdir(parents=True, exist_ok=True)
    mount("--rbind", source, place)


def mounts_below(tree: Path) -> list[str]:
    lines = Path("/proc/self/mountinfo").read_text(encoding="utf-8").splitlines()
    places = [line.split()[4].encode().decode("unicode_escape") for line in lines]
    return [place for place in places if Path(place).is_relative_to(tree)]


def set_the_stage(tree: Path, python: Path, volumes: list[str], *, read_only: bool) -> None:
    """Mount what the base image has and the tree does not hold itself: libraries, devices and Python."""
    enter(CLONE_NEWNS)
    mount("--make-rprivate", "/")
    mount("--bind", tree, tree)
    for name in MOUNTED:
        show(Path(name), tree, name)
    show(python, tree, "/usr/local")
    show(python, tree, str(python))  # its own library is looked for where it was built
    for place in mounts_below(tree):
        if read_only or place != str(tree):
            mount("-o", "remount,bind,ro", place)
    for volume in volumes:
        directory, _, at = volume.rpartition(":")
        mount("--bind", directory, tree / at.lstrip("/"))


def become_root_of_a_namespace() -> None:
    """Map the ids of the tree to those outside, which another process has to do for us."""
    ready, is_ready = os.pipe()
    us = os.getpid()
    if os.fork() == 0:
        os.close(is_ready)
        os.read(ready, 1)  # the end of file comes when we have entered
        for kind in ("uid_map", "gid_map"):
            Path(f"/proc/{us}/{kind}").write_text(f"0 {FIRST_ID} {IDS}\n", encoding="ascii")
        os._exit(0)
    os.close(ready)
    enter(CLONE_NEWUSER)
    os.close(is_ready)
    if os.wait()[1] != 0:
        sys.exit("the ids could not be mapped")
    os.setgroups([])
    os.setresgid(0, 0, 0)
    os.setresuid(0, 0, 0)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("tree", type=Path)
    parser.add_argument("--python", type=Path, required=True)
    parser.add_argument("--user", type=int, required=True)
    parser.add_argument("--workdir", default="/")
    parser.add_argument("--read-only", action="store_true")
    parser.add_argument("--volume", action="append", default=[])
    parser.add_argument("command", nargs="+")
    options = parser.parse_args()
    tree = options.tree.resolve()
    set_the_stage(tree, options.python.resolve(), options.volume, read_only=options.read_only)
    os.chdir(tree)
    become_root_of_a_namespace()
    os.chroot(".")
    os.chdir(options.workdir)
    rights = ["--inh-caps=-all", "--bounding-set=-all", "--no-new-privs"] if options.user else []
    words = ["setpriv", f"--reuid={options.user}", f"--regid={options.user}", "--clear-groups", *rights]
    os.execvp("/usr/bin/setpriv", [*words, "--pdeathsig=KILL", "--", *options.command])  # noqa: S606


if __name__ == "__main__":
    main()
