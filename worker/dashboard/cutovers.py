"""The phase of the cutover and its turns, by heartbeats, and what going back would lose, as last counted."""

from dataclasses import replace

from shared.phase.phases import COMPARED, TITLES
from shared.verdict.facts import Losses
from worker.dashboard.heartbeat import cutover_of
from worker.dashboard.log_line import LogLine
from worker.dashboard.page_state import Cutover, Mark

MOST_TURNS = 200
KINDS = tuple(Losses(0.0, 0, 0, 0, 0, 0).by_kind)


class Cutovers:
    """What was heard last, and the turns that were heard of. Lines may come in any order."""

    def __init__(self) -> None:
        self._heard_at = self._counted_at = 0.0
        self._heard: Cutover | None = None
        self._lost: dict[str, int] | None = None
        self._turns: dict[int, Mark] = {}

    def heartbeat(self, line: LogLine, at: float) -> None:
        if (heard := cutover_of(line)) is None:
            return
        if heard.epoch and heard.epoch not in self._turns:
            kind = "reads_fell_back" if heard.fell_back else "phase_turned"
            self._turns[heard.epoch] = Mark(kind, heard.since, number=heard.phase.number)
            if len(self._turns) > MOST_TURNS:
                del self._turns[min(self._turns)]
        if at >= self._heard_at:
            self._heard_at = at
            self._heard = Cutover(
                heard.phase, heard.phase.number, TITLES[heard.phase], heard.since, heard.fell_back
            )

    def counted(self, line: LogLine, at: float) -> None:
        if at >= self._counted_at:
            self._counted_at = at
            self._lost = {kind: line[kind] for kind in KINDS}

    def turns(self) -> list[Mark]:
        """Return the turns as marks, in no order."""
        return list(self._turns.values())

    def shown(self) -> Cutover | None:
        """Return the phase as it was heard last; where nobody counts, what was counted before is left out."""
        if self._heard is None:
            return None
        if self._lost is not None and self._heard.phase in COMPARED:
            return replace(self._heard, lost=self._lost, lost_counted_at=self._counted_at)
        return self._heard
