"""What bends a curve: workers that begin or end, pauses, rollbacks, turns, times without a worker."""

from bisect import insort
from typing import Final

from worker.dashboard.backfills import ENDS
from worker.dashboard.log_line import LogLine, cut
from worker.dashboard.page_state import Mark
from worker.dashboard.workers import BLIND_AFTER_SECONDS, LONGEST_NAME

MOST_MARKS: Final = 200

MARKED: Final = frozenset(
    (*ENDS, "backfill_started", "rollback_finished", "worker_started", "worker_stopped")
)


def mark_of(line: LogLine, at: float) -> Mark | None:
    """Return what a line of an event in MARKED marks; a rollback's dry run changed nothing."""
    match event := line["event"]:
        case "worker_started" | "worker_stopped":
            return Mark(event, at, subject=cut(line["worker"], LONGEST_NAME))
        case "rollback_finished":
            return None if line["dry_run"] else Mark("rolled_back", at, number=line["removed"])
        case "backfill_started":
            return Mark("backfill_resumed" if line["resumed"] else event, at, number=line["run_id"])
        case _:
            return Mark(event, at, number=line["run_id"])


class Marks:
    """The newest marks, by time. Lines may come in any order."""

    def __init__(self) -> None:
        self._marks: list[Mark] = []

    def take(self, line: LogLine, at: float) -> None:
        """Take a line of one of the events in MARKED."""
        if (mark := mark_of(line, at)) is not None:
            insort(self._marks, mark, key=_at)
            del self._marks[:-MOST_MARKS]

    def shown(
        self,
        turns: list[Mark],
        gaps: list[tuple[float, float]],
        last_heartbeat_at: float | None,
        end: float,
    ) -> list[Mark]:
        """Return all marks, the newest last; also turns, gaps between heartbeats, and the last one."""
        blind = [Mark("blind", heard, until=again) for heard, again in gaps]
        if last_heartbeat_at is not None and end - last_heartbeat_at > BLIND_AFTER_SECONDS:
            blind.append(Mark("blind", last_heartbeat_at))
        return sorted([*self._marks, *turns, *blind], key=_at)


def _at(mark: Mark) -> float:
    return mark.at
