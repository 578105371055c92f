"""Older releases as they were shipped: unpacked from archives, to run beside this one.

`make release-archive` makes an archive. They are kept, because a checkout may come without its history.
"""

import tarfile
from dataclasses import dataclass
from pathlib import Path

ARCHIVES = Path(__file__).parent / "releases"


@dataclass(frozen=True)
class Release:
    """A release, the commit that it was made of, and the newest migration that it has."""

    name: str
    commit: str
    revision: str

    def __str__(self) -> str:
        return self.name

    def unpack(self, directory: Path) -> Path:
        """Unpack the release and return its root, in which its processes are started."""
        root = directory / f"release-{self.name}"
        with tarfile.open(ARCHIVES / f"{self.name}.tar.gz") as archive:
            assert archive.pax_headers["comment"] == self.commit
            archive.extractall(root, filter="data")
        assert f'version = "{self.name}"' in (root / "pyproject.toml").read_text(encoding="utf-8")
        return root


# It knows nothing of versions of events, and rings by names that no database has to itself.
FIRST = Release("0.1.0", "53a599ccefac669475cd8a95c81bea594ff81fcf", "0004")
BEFORE = Release("0.1.1", "e0d0c2a944ae82a929ab6b2d65fd9cc3c3827a8b", "0007")
RELEASES = (FIRST, BEFORE)
