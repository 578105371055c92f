"""What the benchmark asks of a system."""

from collections.abc import Callable, Mapping
from contextlib import AbstractAsyncContextManager
from typing import Protocol

from benchmarks.peers.systems.changes import Change

Applied = Callable[[int], None]


class Writer(Protocol):
    """Writes as an application does that uses the system; many of its methods may run at once."""

    async def write(self, change: Change) -> tuple[int, float]:
        """Commit the legacy row and the message about it.

        Returns the number by which the worker will report it, and the time when COMMIT had returned, before
        whatever a pool does when it takes the connection back.
        """

    async def write_alone(self, change: Change) -> None:
        """Commit the legacy row alone: what a write costs without the system."""


class System(Protocol):
    """A module of a system."""

    SETTINGS: Mapping[str, object]

    async def install(self, url: str) -> None:
        """Create its tables."""

    def writing(self, url: str) -> AbstractAsyncContextManager[Writer]:
        """Open what a writing process needs."""

    async def work(self, url: str, applied: Applied) -> None:
        """Carry changes over for ever; call `applied` after each one's COMMIT with the event's number."""
