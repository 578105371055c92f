"""Older releases as they were shipped: unpacked from archives, to run beside this one.

`make release-archive` makes an archive. They are kept, because a checkout may come without its history.
"""

import tarfile
from dataclasses import dataclass
from pathlib import Path

ARCHIVES = Path(__file__).parent / "releases"


@dataclass(frozen=True)
class Release:
    """A release that is kept."""

    name: str

    def __str__(self) -> str:
        return self.name

    def unpack(self, directory: Path) -> Path:
        """Unpack the release and return its root, in which its processes are started."""
        root = directory / f"release-{self.name}"
        with tarfile.open(ARCHIVES / f"{self.name}.tar.gz") as archive:
            archive.extractall(root, filter="data")
        assert f'version = "{self.name}"' in (root / "pyproject.toml").read_text(encoding="utf-8")
        return root


def revision_of(root: Path) -> str:
    """Return the newest migration that the release has whose root this is."""
    return max(path.name.partition("_")[0] for path in (root / "migrations" / "versions").glob("[0-9]*.py"))


def _kept() -> tuple[Release, ...]:
    names = (path.name.removesuffix(".tar.gz") for path in ARCHIVES.glob("*.tar.gz"))
    return tuple(Release(name) for name in sorted(names, key=lambda name: [*map(int, name.split("."))]))


RELEASES = _kept()  # the oldest first
# The first knows nothing of versions of events, and rings by names that no database has to itself.
FIRST, BEFORE = RELEASES[0], RELEASES[-1]
