"""Since when the state on top of the page has lasted, as far as it was watched.

It never reaches across a blind spell, nor across a rollback or a backfill: what was proved before them was
proved of something else.
"""

from collections.abc import Callable

from worker.dashboard.audits import is_clean, left, proves
from worker.dashboard.evidence import Evidence
from worker.dashboard.page_state import Audit


def since(word: str, evidence: Evidence) -> float | None:
    """Return when the state of this word began; None where that is not known."""
    if (began := BEGINNINGS.get(word)) is None:
        return None
    at, floor = began(evidence), _floor(evidence)
    if at is None or word in REMEMBERED:
        return at
    return at if floor is None else max(at, floor)


def _floor(evidence: Evidence) -> float | None:
    history = evidence.facts.known_history
    back, run = history.rollback, history.backfill
    ends = [
        evidence.watched_since,
        None if back is None else back.ended_at,
        None if run is None else run.finished_at,
    ]
    return max((end for end in ends if end is not None), default=None)


def _first_of_last(kind: Callable[[Audit], bool]) -> Callable[[Evidence], float | None]:
    """Return what finds the end of the first of the unbroken row of such audits with which the log ends."""

    def find(evidence: Evidence) -> float | None:
        floor, found = _floor(evidence), None
        for audit in reversed([audit for audit in evidence.audits if audit.project_id is None]):
            if not kind(audit) or (floor is not None and audit.at < floor):
                break
            found = audit.at
        return floor if found is None else found

    return find


def _drifted(evidence: Evidence) -> float | None:
    alone = [audit.ended_at for audit in evidence.facts.known_history.drifted]
    return min(alone) if alone else _first_of_last(lambda audit: proves(audit) and left(audit) > 0)(evidence)


def _letter_died(evidence: Evidence) -> float | None:
    return evidence.letter_died_at


def _held(evidence: Evidence) -> float | None:
    held = [holder.held_seconds for holder in evidence.facts.holders or () if holder.held_seconds is not None]
    return None if not held or evidence.last_heartbeat_at is None else evidence.last_heartbeat_at - held[0]


def _backfill_began(evidence: Evidence) -> float | None:
    run = evidence.facts.known_history.backfill
    return None if run is None else run.started_at


def _backfill_heard(evidence: Evidence) -> float | None:
    run = evidence.facts.known_history.backfill
    return None if run is None else run.heard_at


def _rolled_back(evidence: Evidence) -> float | None:
    back = evidence.facts.known_history.rollback
    return None if back is None else back.ended_at


def _stopped(evidence: Evidence) -> float | None:
    ends = [worker.ended_at or worker.heard_at for worker in evidence.facts.workers or ()]
    return max(ends, default=None)


def _turned(evidence: Evidence) -> float | None:
    cutover = evidence.facts.cutover
    return None if cutover is None else cutover.since


def _repaired(evidence: Evidence) -> float | None:
    proof = evidence.facts.known_history.proof
    return None if proof is None else proof.ended_at


REMEMBERED = {
    "fell_back",
    "stopped",
    "rolled_back",
    "rollback_interrupted",
}  # done, whether or not a worker was heard then
BEGINNINGS: dict[str, Callable[[Evidence], float | None]] = {
    "in_sync": _first_of_last(is_clean),
    "dead_letters": _letter_died,
    "drift": _drifted,
    "incomplete": _first_of_last(lambda audit: not proves(audit)),
    "repaired": _repaired,
    "stuck": _held,
    "backfilling": _backfill_began,
    "backfill_paused": _backfill_heard,
    "interrupted": _backfill_heard,
    "rolled_back": _rolled_back,
    "rollback_interrupted": _rolled_back,
    "stopped": _stopped,
    "fell_back": _turned,
}
