"""Writing the page where one asked for it: into a file, whole or not at all, or into a stream."""

import errno
import os
import stat
import sys
import tempfile
from pathlib import Path

STDOUT = Path("-")


def write_page(path: Path, text: str) -> None:
    """Write the page; a link is followed, and what is no regular file is written to as it comes.

    A reader finds the old page or the whole new one, with the rights of the old one.

    Raises:
        OSError: it cannot be written; then the old page is there still.

    """
    if path == STDOUT or _is_stdout(path):
        sys.stdout.buffer.write(text.encode())  # a browser reads it, in UTF-8, and not the terminal
    elif path.exists() and not path.is_file():
        with path.open("w", encoding="utf-8", newline="\n") as stream:
            stream.write(text)
    else:
        _replace(Path(os.path.realpath(path)), text)


def _is_stdout(path: Path) -> bool:
    """Return whether it is the file behind our standard output, where a new one beside it would go unseen."""
    try:
        return os.path.samestat(path.stat(), os.fstat(sys.stdout.fileno()))
    except (OSError, ValueError):
        return False


def _replace(path: Path, text: str) -> None:
    if path.is_symlink():
        raise OSError(errno.ELOOP, os.strerror(errno.ELOOP), str(path))
    number, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name[:100]}.")
    try:
        with os.fdopen(number, "w", encoding="utf-8", newline="\n") as file:
            file.write(text)
            os.fchmod(number, _mode(path))
        Path(name).replace(path)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise


def _mode(path: Path) -> int:
    if path.exists():
        return stat.S_IMODE(path.stat().st_mode)
    mask = os.umask(0)
    os.umask(mask)
    return 0o666 & ~mask
