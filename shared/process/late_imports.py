"""Importing what does the work, after the command line was read: --help needs none of it."""

import contextlib
import gc
from collections.abc import Iterator


@contextlib.contextmanager
def late_imports() -> Iterator[None]:
    """Import in this block, and never look for garbage in what was imported: it stays until the end.

    Looking for it, while the modules come and once more when the process ends, takes a third of the CPU time
    of a command that reads one row.
    """
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        gc.enable()
