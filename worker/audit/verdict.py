"""What a pass proves: nothing, unless every slice was done and every pair of it compared."""

from dataclasses import dataclass

from worker.audit.comparison import Tally
from worker.audit.dead_events import DeadEvents
from worker.audit.remainder import Remainder
from worker.audit.repair import Outcomes


@dataclass(slots=True)
class Coverage:
    """Slices planned and done, and those of them that compared more or fewer pairs than they had."""

    planned: int = 0
    done: int = 0
    uneven: int = 0

    def add(self, tally: Tally) -> None:
        """Count a slice that was done. Errors of two slices must not cancel, so each is judged alone."""
        self.done += 1
        self.uneven += tally.compared != tally.planned


def judge(  # noqa: PLR0913 - all that a pass may meet
    coverage: Coverage,
    tally: Tally,
    outcomes: Outcomes,
    *,
    strays: int,
    remainder: Remainder,
    dead: DeadEvents,
) -> tuple[str, str | None]:
    """Return the verdict of a pass that came to its end, and the reason where there is more to say.

    Args:
        coverage: of the key space.
        tally: of all slices.
        outcomes: of the repair; all zero when there was none.
        strays: findings of which no event can be made, because they belong to no collection.
        remainder: why repaired pairs differ still.
        dead: what no repair was tried of, because its event died.

    """
    if coverage.uneven or coverage.done != coverage.planned or tally.compared != tally.planned:
        slices = f"{coverage.done} of {coverage.planned} slices were done, {coverage.uneven} not as planned"
        return "incomplete", f"{tally.compared} pairs were compared, {tally.planned} planned; {slices}."
    if outcomes.repaired != tally.found:
        reasons = [*_what_is_left(outcomes, strays, remainder), *dead.reasons(tally.found)]
        return "drift", _together(*reasons, *_what_waits_in_vain(tally))
    if tally.unclaimable:  # not drift: a worker that knows their events may be on its way; nor is it proof
        return "incomplete", _together(*_what_waits_in_vain(tally))
    if tally.found:
        return "repaired", None
    return ("pending" if tally.pending else "in_sync"), None


def _together(*reasons: str) -> str | None:
    return " ".join(reasons) or None


def _what_waits_in_vain(tally: Tally) -> list[str]:
    if not tally.unclaimable:
        return []
    reason = (
        f"{tally.unclaimable} pairs differ, and for them only events of a later version wait than this"
        " release knows: start workers of the release that writes them. Where there is none, remove the"
        " events, and repair."
    )
    return [reason]


def _what_is_left(outcomes: Outcomes, strays: int, remainder: Remainder) -> list[str]:
    reasons = []
    if outcomes.pending:
        reasons.append(f"{outcomes.pending} wait for their event: is a worker running?")
    reasons += remainder.reasons(outcomes.still_differs - strays)
    if strays:
        reasons.append(
            f"{strays} belong to no collection, so no event can describe them:"
            " the foreign key of project_collections was bypassed; delete them by hand."
        )
    return reasons
