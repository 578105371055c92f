"""Files of a run in memory, where there is room: to make and remove them on a disk is a good part of a run.

A pytest plugin. To see what a test left, name a place: `TMPDIR`, or `--basetemp`.
"""

import os
import shutil
import tempfile
from multiprocessing.util import Finalize
from pathlib import Path

MEMORY = Path("/dev/shm")  # noqa: S108 - a directory of a random name is made there
NAME = "collection-sync-tests"
ROOM_BYTES = 4 * 2**30  # a server's log alone may take a quarter of it


def pytest_configure() -> None:
    """Let this process, and all that it starts, make temporary files there."""
    if "TMPDIR" in os.environ:  # also in the processes that share the tests among them
        return
    if not MEMORY.is_dir() or shutil.disk_usage(MEMORY).free < ROOM_BYTES:
        return
    for left in MEMORY.glob(f"{NAME}-*-*"):  # by a run that was killed
        if not Path("/proc", left.name.split("-")[-2]).exists():
            shutil.rmtree(left, ignore_errors=True)
    directory = tempfile.mkdtemp(dir=MEMORY, prefix=f"{NAME}-{os.getpid()}-")
    Path(directory).chmod(0o755)  # servers run as another user
    os.environ["TMPDIR"] = directory
    tempfile.tempdir = None  # where they were made before
    # After multiprocessing has removed its own, which has -100.
    Finalize(None, shutil.rmtree, (directory,), {"ignore_errors": True}, exitpriority=-200)
