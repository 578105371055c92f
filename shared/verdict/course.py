"""The course of the migration: before, during and after the backfill, and back; and the workers."""

from shared.verdict import commands
from shared.verdict.answer import Answer
from shared.verdict.facts import Backfill, Facts, History
from shared.verdict.proof_age import LATE_AFTER_SECONDS
from shared.verdict.validity import is_recent_enough
from shared.verdict.words import clock, clock_to_the_second, count, done_about, percent, span

SILENT_SECONDS = 3.0  # a driver that lives says so once a second


def backfill(facts: Facts) -> Answer | None:
    """Speak while a run is running, paused or left by its driver."""
    run = facts.known_history.backfill
    if run is None or run.status not in {"running", "paused"}:
        return None
    done = f"{run.processed:,} of {run.planned:,} rows are done"
    if run.status == "paused":
        sentence = f"Backfill paused at {percent(run)}: {done}."
        steps = [*_start_worker(facts), commands.RESUME]
        return Answer("backfill_paused", sentence, steps, f"Paused at {percent(run)}")
    is_silent = facts.server.now - run.heard_at > SILENT_SECONDS + facts.late_by_seconds
    if not run.in_worker and (run.has_let_go or is_silent):
        sentence = f"Backfill interrupted at {percent(run)}: {done}, and nobody goes on."
        steps = [*_start_worker(facts), commands.RESUME]
        return Answer("interrupted", sentence, steps, f"Interrupted at {percent(run)}")
    if not facts.alive:
        return stopped(facts)
    return Answer("backfilling", _progress(run, facts.server.now), [commands.WATCH])


def _progress(run: Backfill, now: float) -> str:
    sentence = f"Backfilling {percent(run)}"
    if run.throttled_by:
        return f"{sentence}, waiting: {run.throttled_by}."
    at = done_about(run, now)
    return f"{sentence}." if at is None else f"{sentence}, done about {clock(at, now)}."


def not_backfilled(facts: Facts) -> Answer | None:
    """Speak where not all was brought over: never begun, given up, of one project only, or taken back."""
    history, now = facts.known_history, facts.server.now
    if history.backfilled_at is not None or _is_proved_without(history):
        return None
    go_on = [*_start_worker(facts), commands.BACKFILL]
    back = history.rollback
    if back is not None and back.status != "finished":
        sentence = f"Rollback unfinished: it began at {clock(back.ended_at, now)} and has not ended."
        if not facts.alive:
            return Answer("rollback_interrupted", sentence, [commands.ROLL_BACK])
        sentence += " Stop the workers to go on with it, or go forward."  # it refuses beside a worker
        return Answer("rollback_interrupted", sentence, [commands.BACKFILL])
    if back is not None:
        sentence = f"Rolled back at {clock(back.ended_at, now)}. To go forward again, backfill again."
        return Answer("rolled_back", sentence, go_on)
    run = history.backfill
    ended = "" if run is None else f" The last run, {run.id}, {_ended(run)}."
    sentence = f"Not backfilled yet: what was there before is not in project_collections.{ended}"
    return Answer("not_backfilled", sentence, go_on)


def _is_proved_without(history: History) -> bool:
    """Return whether both tables agree although nobody backfilled: perhaps nothing was to be brought over."""
    whole = history.whole
    return whole is not None and whole.is_clean and is_recent_enough(whole, history)


def _ended(run: Backfill) -> str:
    of_one = "" if run.project_id is None else "was of one project alone and "
    return f"{of_one}{'was cancelled' if run.status == 'cancelled' else 'is finished'}"


def stopped(facts: Facts) -> Answer | None:
    if facts.alive:
        return None
    waits = f" {count(facts.waiting, 'event waits', 'events wait')}." if facts.waiting else ""
    workers, now = facts.workers or [], facts.server.now
    if not workers:
        sentence = f"Stopped: no worker has run within the last hour.{waits}"
        return Answer("stopped", sentence, [commands.WORKER])
    last = max(workers, key=lambda worker: worker.ended_at or worker.heard_at)
    at = last.ended_at or last.heard_at
    how = "ended in good order" if last.ended_at is not None else "fell silent without a word"
    sentence = f"Stopped: the last worker, {last.name}, {how} at {clock_to_the_second(at, now)}.{waits}"
    return Answer("stopped", sentence, [commands.WORKER], f"Stopped at {clock(at, now)}")


def later_versions(facts: Facts) -> Answer | None:
    if not facts.later_versions:
        return None
    waits = count(facts.later_versions, "event of a later version waits", "events of a later version wait")
    return Answer(
        "later_version", f"{waits}: start workers of the release that wrote them.", [commands.WATCH]
    )


def settling(facts: Facts) -> Answer | None:
    lanes = facts.lanes or {}
    bulk = {name: lanes[name] for name in ("repair", "backfill") if lanes[name].pending}
    if not bulk:
        return None
    waits = " and ".join(f"{lane.pending:,} of {_whose(name)}" for name, lane in bulk.items())
    oldest = max(lane.oldest_seconds or 0.0 for lane in bulk.values())
    sentence = (
        f"Settling: of the events that workers are to apply, {waits} wait, the oldest for {span(oldest)}."
    )
    looks = [commands.PREFLIGHT] if oldest > LATE_AFTER_SECONDS else []
    return Answer("settling", sentence, [*looks, commands.WATCH])


def _whose(lane: str) -> str:
    return {"repair": "repairs", "backfill": "the backfill"}[lane]


def _start_worker(facts: Facts) -> list[str]:
    return [] if facts.alive else [commands.WORKER]
