"""The release before this one, as it was shipped: unpacked from an archive, to run beside this one.

`make release-archive` makes the archive. It is kept, because a checkout may come without its history.
"""

import tarfile
from pathlib import Path

RELEASES = Path(__file__).parent / "releases"
NAME = "0.1.0"
COMMIT = "53a599ccefac669475cd8a95c81bea594ff81fcf"
REVISION = "0004"  # the newest migration that it has


def unpack(directory: Path) -> Path:
    """Unpack the release and return its root, in which its processes are started."""
    root = directory / f"release-{NAME}"
    with tarfile.open(RELEASES / f"{NAME}.tar.gz") as archive:
        assert archive.pax_headers["comment"] == COMMIT
        archive.extractall(root, filter="data")
    assert f'version = "{NAME}"' in (root / "pyproject.toml").read_text(encoding="utf-8")
    return root
