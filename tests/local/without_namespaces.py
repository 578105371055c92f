"""Run a command as root in a place where no user namespace can be made, as in most containers.

The command runs in a user namespace of its own that may hold no further ones; the process keeps
its id. Exits 77 where the kernel does not even allow that.
"""

import ctypes
import os
import sys
from pathlib import Path

CLONE_NEWUSER = 0x10000000
NOT_ALLOWED = 77
EVERY_ID = "0 0 65536"

us = os.getpid()
unshared, unshare_done = os.pipe()
helper = os.fork()  # the map must be written by somebody outside
if helper == 0:
    os.read(unshared, 1)
    for file in ("uid_map", "gid_map"):
        Path(f"/proc/{us}/{file}").write_text(EVERY_ID)
    os._exit(0)
allowed = ctypes.CDLL(None).unshare(CLONE_NEWUSER) == 0
os.write(unshare_done, b".")
mapped = os.waitstatus_to_exitcode(os.waitpid(helper, 0)[1]) == 0
if not (allowed and mapped):
    sys.exit(NOT_ALLOWED)
Path("/proc/sys/user/max_user_namespaces").write_text("0")
os.execvp(sys.argv[1], sys.argv[1:])  # noqa: S606 - it becomes the command
