"""The answer of the page: what the shared rules say of a log's facts, but for what only a log can be."""

from dataclasses import replace

from shared.verdict import commands
from shared.verdict.answer import Answer
from shared.verdict.rules import answer_from
from worker.dashboard.audits import proves
from worker.dashboard.evidence import Evidence
from worker.dashboard.page_state import GoOn, PageVerdict, Tone
from worker.dashboard.since import since
from worker.dashboard.workers import BLIND_AFTER_SECONDS

TONES: dict[str, Tone] = {
    "in_sync": "good",
    "backfilling": "busy",
    "settling": "busy",
    "not_audited": "unknown",
    "unknown": "unknown",
    "dead_letters": "warning",
    "incomplete": "warning",
    "interrupted": "warning",
    "late": "warning",
    "later_version": "warning",
    "not_backfilled": "warning",
    "outdated": "warning",
    "backfill_paused": "warning",
    "repaired": "warning",
    "rolled_back": "warning",
}  # any other is bad
REDIS = {
    "away": "Redis is away: PostgreSQL is asked five times a second instead, and nothing is lost.",
    "refuses": "Redis refuses what the doorbell needs: PostgreSQL is asked five times a second instead.",
}


def page_verdict(evidence: Evidence) -> PageVerdict:
    """Return the word, sentence and commands of `python -m worker.status`, as far as a log can know them."""
    said = (rule(evidence) for rule in (_blind, _database_away, _unfit))
    answer = next((one for one in said if one is not None), None) or answer_from(evidence.facts)
    proofs = [audit.at for audit in evidence.audits if audit.project_id is None and proves(audit)]
    return PageVerdict(
        state=answer.word,
        tone=TONES.get(answer.word, "bad"),
        title=answer.title,
        detail=answer.sentence,
        since=_since(answer, evidence),
        verified_at=proofs[-1] if proofs else None,
        last_heartbeat_at=evidence.last_heartbeat_at,
        blind_after_seconds=BLIND_AFTER_SECONDS,
        next_steps=list(answer.next_steps),
    )


def go_on(evidence: Evidence, verdict: PageVerdict) -> GoOn:
    """Return whether the next step may be taken, and what stands in the way, or beside it, as sentences."""
    beat = evidence.beat
    beside = [REDIS[beat.redis]] if beat is not None and beat.redis in REDIS else []
    if verdict.state == "in_sync":
        return GoOn(may=True, reasons=beside)
    return GoOn(may=False, reasons=[verdict.detail, *beside])


def with_the_end(verdict: PageVerdict, at_end: Evidence) -> PageVerdict:
    """Add to the verdict of a file that says nothing about now what it said when it ended."""
    before = page_verdict(at_end)
    if verdict.state != "blind" or before.state == "blind":
        return verdict
    return replace(verdict, detail=f"{verdict.detail} When the log ended: {before.detail}")


def _is_heard(evidence: Evidence) -> bool:
    heard = evidence.last_heartbeat_at
    return heard is not None and evidence.facts.server.now - heard <= BLIND_AFTER_SECONDS


def _blind(evidence: Evidence) -> Answer | None:
    """Speak where no worker is heard, unless the one that was heard last said that it ends."""
    last = max(evidence.facts.workers or (), key=lambda one: one.ended_at or one.heard_at, default=None)
    if _is_heard(evidence) or (last is not None and last.ended_at is not None):
        return None
    sentence = "Blind: no heartbeat of any worker"
    if evidence.last_heartbeat_at is not None:
        sentence += f" for over {BLIND_AFTER_SECONDS:.0f} seconds"
    return Answer("blind", f"{sentence}, so nobody knows what waits.", [commands.WORKER, commands.WATCH])


def _database_away(evidence: Evidence) -> Answer | None:
    if evidence.database_away_since is None:
        return None
    sentence = "PostgreSQL is away: no worker reaches it, so nothing is applied, and nothing compared."
    return Answer("database_away", sentence, [commands.PREFLIGHT, commands.WATCH])


def _unfit(evidence: Evidence) -> Answer | None:
    """Speak where the database is one that takes no writes, for another reason than the rules know."""
    beat = evidence.beat
    if beat is None or beat.fault is None or beat.is_of_sequences or beat.is_read_only:
        return None
    sentence = f"Unfit: {beat.fault}. Nothing is written or applied until that is fixed."
    return Answer("unfit", sentence, [commands.PREFLIGHT, commands.WATCH])


def _since(answer: Answer, evidence: Evidence) -> float | None:
    if answer.word == "blind" and evidence.last_heartbeat_at is not None:
        return evidence.last_heartbeat_at + BLIND_AFTER_SECONDS
    if answer.word == "database_away":
        return evidence.database_away_since
    return since(answer.word, evidence)
