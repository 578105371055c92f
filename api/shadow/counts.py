"""What came of the lists that were sampled: summed in the process, and stored by minutes."""

import math
import time
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime

import asyncpg
import structlog

from shared.phase.comparison import Comparison, Outcome

logger = structlog.get_logger(__name__)

SECONDS_BETWEEN_LINES = 60.0
COUNTED = (*Outcome, "collections", "legacy_seconds", "target_seconds")

# $1 epoch, $2 when the last was compared, then as COUNTED. By shadow_counts_pkey.
STORE = f"""
    INSERT INTO shadow_counts (epoch, minute, last_at, {", ".join(COUNTED)})
    VALUES (
        $1, date_trunc('minute', statement_timestamp()), $2,
        {", ".join(f"${number}" for number, _ in enumerate(COUNTED, 3))}
    )
    ON CONFLICT (epoch, minute) DO UPDATE SET
        {", ".join(f"{name} = shadow_counts.{name} + excluded.{name}" for name in COUNTED)},
        last_at = greatest(shadow_counts.last_at, excluded.last_at)
"""  # noqa: S608 - constants


@dataclass(slots=True)
class Sums:
    """Lists by their outcome, and of those that were compared how many collections; last_at: of these."""

    lists: Counter[Outcome] = field(default_factory=Counter)
    collections: int = 0
    legacy_seconds: float = 0.0
    target_seconds: float = 0.0
    last_at: datetime | None = None

    @classmethod
    def of(cls, comparison: Comparison) -> "Sums":
        lists = Counter([comparison.outcome])
        if comparison.outcome is Outcome.DROPPED:  # longer than what is compared
            return cls(lists)
        return cls(
            lists,
            comparison.collections,
            comparison.legacy_seconds,
            comparison.target_seconds,
            comparison.compared_at,
        )

    def add(self, other: "Sums") -> None:
        self.lists.update(other.lists)
        self.collections += other.collections
        self.legacy_seconds += other.legacy_seconds
        self.target_seconds += other.target_seconds
        self.last_at = max(filter(None, (self.last_at, other.last_at)), default=None)

    def numbers(self) -> Mapping[str, float]:
        """Return them by the names of COUNTED."""
        return {
            **{outcome.value: self.lists[outcome] for outcome in Outcome},
            "collections": self.collections,
            "legacy_seconds": self.legacy_seconds,
            "target_seconds": self.target_seconds,
        }


class Counts:
    """The sums of one process. totals: since it began, for its metrics."""

    def __init__(self) -> None:
        self.totals = Sums()
        self._unlogged = Sums()
        self._next_line = -math.inf  # monotonic
        self._unstored: dict[int, Sums] = {}

    def note(self, epoch: int, sums: Sums) -> None:
        self.totals.add(sums)
        self._unlogged.add(sums)
        self._unstored.setdefault(epoch, Sums()).add(sums)

    @property
    def is_stored(self) -> bool:
        return not self._unstored

    async def store(self, connection: asyncpg.Connection) -> None:
        """Add what was summed to the present minute; what fails is kept for the next time."""
        unstored, self._unstored = self._unstored, {}
        try:
            for epoch, sums in list(unstored.items()):
                await connection.execute(STORE, epoch, sums.last_at, *sums.numbers().values())
                del unstored[epoch]
        finally:
            for epoch, sums in unstored.items():
                self._unstored.setdefault(epoch, Sums()).add(sums)

    def log(self, *, at_once: bool = False) -> None:
        """Log what was summed since the last line, if that was a minute ago, or at once."""
        if self._unlogged.lists and (at_once or time.monotonic() >= self._next_line):
            self._next_line = time.monotonic() + SECONDS_BETWEEN_LINES
            unlogged, self._unlogged = self._unlogged, Sums()
            logger.info("shadow_compared", **unlogged.numbers())
