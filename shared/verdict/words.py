"""How the verdict says numbers, moments and names."""

from datetime import UTC, datetime
from typing import Protocol

from shared.verdict.facts import Backfill, LockHolder

LONGEST_LEFT_SECONDS = 365 * 86_400.0


def clock(moment: float, now: float) -> str:
    """Return a moment as the time of day here; with the date where it is not of the last 20 hours."""
    local = datetime.fromtimestamp(moment, UTC).astimezone()
    return f"{local:%H:%M}" if abs(now - moment) < 20 * 3600 else f"{local:%Y-%m-%d %H:%M}"


def clock_to_the_second(moment: float, now: float) -> str:
    """Return the same with its seconds, and without a date that would not matter to them."""
    local = datetime.fromtimestamp(moment, UTC).astimezone()
    return f"{local:%H:%M:%S}" if abs(now - moment) < 20 * 3600 else clock(moment, now)


def span(seconds: float) -> str:
    for unit, size in (("days", 86_400), ("hours", 3600), ("minutes", 60)):
        if seconds >= 2 * size:
            return f"{seconds / size:.0f} {unit}"
    return f"{max(seconds, 0):.0f} s"


def count(number: int, one: str, many: str) -> str:
    return f"{number:,} {one if number == 1 else many}"


class Rows(Protocol):
    """What counts rows: those done, of those planned."""

    @property
    def processed(self) -> int: ...
    @property
    def planned(self) -> int: ...


def percent(run: Rows) -> str:
    """Return how much of a run is done; never all of it before its end."""
    share = 100 * run.processed // run.planned if run.planned else 0
    return f"{min(share, 99)} %"


def done_about(run: Backfill, now: float) -> float | None:
    """Return when the run is done if it goes on as it did so far; None: that is not known, or a year off."""
    spent = run.heard_at - run.started_at
    if not run.processed or spent <= 0 or run.throttled_by:
        return None
    left = max(run.planned - run.processed, 0) * spent / run.processed
    return now + left if left < LONGEST_LEFT_SECONDS else None


def who(holder: LockHolder) -> str:
    """Return what a session is called; its name, which its client chose, may hold anything."""
    if holder.pid == 0:
        return "a prepared transaction"
    name = holder.application or holder.role
    return f"pid {holder.pid}{f' ({name})' if name else ''}"
