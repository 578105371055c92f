"""The facts of the verdict, out of what was folded of a log; what a log cannot know is unknown."""

from dataclasses import dataclass, replace

from shared.verdict.facts import (
    GONE_SECONDS,
    LOCKED,
    Facts,
    History,
    Letter,
    Server,
    Waiting,
)
from worker.dashboard import page_state
from worker.dashboard.heartbeat import Beat, beat_of
from worker.dashboard.page_state import LANES
from worker.dashboard.workers import BLIND_AFTER_SECONDS, Workers

NOT_COUNTED = "no heartbeat has counted lately what waits"


@dataclass(frozen=True, slots=True)
class Evidence:
    """What the answers rest on. `watched_since`: the end of the last blind spell, or the first heartbeat."""

    facts: Facts
    audits: list[page_state.Audit]  # the newest last
    last_heartbeat_at: float | None
    database_away_since: float | None
    watched_since: float | None
    letter_died_at: float | None = None  # the first of those that are open
    beat: Beat | None = None  # the newest


def newest_beat(workers: Workers) -> Beat | None:
    line, at = workers.last_heartbeat, workers.last_heartbeat_at
    return None if line is None or at is None else beat_of(line, at)


def facts_of(  # noqa: PLR0913 - each is a part of what was folded
    workers: Workers,
    beat: Beat | None,
    history: History,
    *,
    letters: list[Letter],
    open_letters: int,
    now: float,
) -> Facts:
    """Return the facts as of now, a moment of the wall clock or the end of a log."""
    lanes = _lanes(workers)
    unknown = {"schema": "a log does not say"}
    if lanes is None:
        unknown["lanes"] = LOCKED if beat is not None and beat.is_locked else NOT_COUNTED
    facts = Facts(
        server=Server(now, is_read_only=beat is not None and beat.is_read_only),
        workers=workers.processes(now),
        lanes=lanes,
        later_versions=0 if workers.queue is None else workers.queue.unknown_version,
        history=_with_heartbeat(history, beat),
        letters=letters,
        more_letters=max(open_letters - len(letters), 0),
        cutover=None if beat is None else beat.cutover,
        late_by_seconds=BLIND_AFTER_SECONDS - GONE_SECONDS,
        unknown=unknown,
    )
    if not facts.alive:  # nobody has counted since
        return replace(facts, lanes={lane: Waiting(0, None) for lane in LANES})
    if beat is None:
        return facts
    faults = [beat.fault] if beat.fault and beat.is_of_sequences else None
    return replace(facts, holders=beat.held_by, sequence_faults=faults)


def _lanes(workers: Workers) -> dict[str, Waiting] | None:
    waiting = workers.waiting()
    known: dict[str, Waiting] = {}
    for lane, seen in waiting.items():
        if seen.pending is None:
            return None
        known[lane] = Waiting(seen.pending, seen.oldest_seconds if seen.pending else None)
    return known


def _with_heartbeat(history: History, beat: Beat | None) -> History:
    """Return it with what the newest heartbeat says of runs whose own lines may be in another log.

    Where neither lines nor heartbeats say anything of backfills, as those of older releases do not, what
    differs is drift: whether all was brought over is not known, and no page may ask for that again.
    """
    back, run = history.rollback, history.backfill
    if beat is None or not beat.tells_of_backfills:
        is_known = back is not None or run is not None
        return history if is_known else replace(history, backfilled_at=0.0)
    if beat.rollback is not None and (back is None or beat.rollback.ended_at > back.ended_at):
        back = beat.rollback
    if run is not None and (run.finished_at or run.heard_at) > beat.at:  # what its lines say is newer
        return replace(history, rollback=back)
    is_taken_back = back is not None and (beat.backfilled_at or 0.0) < back.ended_at
    return replace(
        history,
        backfill=beat.backfill or run,
        backfilled_at=None if is_taken_back else beat.backfilled_at,
        rollback=back,
    )
