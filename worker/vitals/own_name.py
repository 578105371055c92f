"""What a worker's process is called, in the database, in Redis and in the log."""

import os
import platform
import secrets
from functools import cache


def own_name() -> str:
    """Return this process's name: host:pid:drawn.

    Containers that share their host's network are all process 1 of one host, so eight digits are drawn. Names
    are for people to read: nothing may be decided by one.
    """
    pid = os.getpid()
    return f"{platform.node()}:{pid}:{_drawn(pid)}"


@cache
def _drawn(_pid: int) -> str:  # a process that was forked draws its own
    return secrets.token_hex(4)
