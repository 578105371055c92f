"""The two answers of the page: do both tables agree, and may the operator go on. Pure functions."""

from collections.abc import Callable
from dataclasses import dataclass, replace

from shared.verdict.proof_age import LATE_AFTER_SECONDS, outdated_after
from worker.dashboard.audits import is_clean, left, proves
from worker.dashboard.page_state import Audit, Backfill, GoOn, PageVerdict, Waiting
from worker.dashboard.workers import BLIND_AFTER_SECONDS

UNFINISHED = {"running", "paused", "interrupted"}


@dataclass(frozen=True, slots=True)
class Evidence:
    """What the answers rest on. `now` is a moment of the wall clock, or the end of a log."""

    now: float
    last_heartbeat_at: float | None
    database_away_since: float | None
    waiting: dict[str, Waiting]
    audits: list[Audit]  # the newest last
    dead_letters_open: int | None
    backfills: list[Backfill]  # the newest first
    unknown_version: int = 0  # events that wait for a worker of a later release


def page_verdict(evidence: Evidence) -> PageVerdict:
    """Return whether both tables agree: the first rule that applies decides."""
    said = next(said for rule in RULES if (said := rule(evidence)) is not None)
    proof = _last_proof(evidence)
    return replace(
        said,
        verified_at=None if proof is None else proof.at,
        last_heartbeat_at=evidence.last_heartbeat_at,
        blind_after_seconds=BLIND_AFTER_SECONDS,
    )


def _whole(evidence: Evidence) -> list[Audit]:
    return [audit for audit in evidence.audits if audit.project_id is None]


def _last_proof(evidence: Evidence) -> Audit | None:
    return next((audit for audit in reversed(_whole(evidence)) if proves(audit)), None)


def _first_of_last(audits: list[Audit], kind: Callable[[Audit], bool]) -> float | None:
    """Return when the first ended of the unbroken row of such audits with which the list ends."""
    since = None
    for audit in reversed(audits):
        if not kind(audit):
            break
        since = audit.at
    return since


def _is_drift(audit: Audit) -> bool:
    return audit.verdict == "drift" or (audit.verdict != "repaired" and proves(audit) and left(audit) > 0)


def _blind(evidence: Evidence) -> PageVerdict | None:
    if evidence.last_heartbeat_at is None:
        detail = "No worker was heard of: nobody knows what waits."
        return PageVerdict("blind", "bad", "Blind", detail)
    if evidence.now - evidence.last_heartbeat_at <= BLIND_AFTER_SECONDS:
        return None
    detail = (
        f"No heartbeat of any worker for over {BLIND_AFTER_SECONDS:.0f} seconds: nobody knows what waits."
    )
    return PageVerdict(
        "blind", "bad", "Blind", detail, since=evidence.last_heartbeat_at + BLIND_AFTER_SECONDS
    )


def _database_away(evidence: Evidence) -> PageVerdict | None:
    if evidence.database_away_since is None:
        return None
    detail = "No worker reaches PostgreSQL: nothing is applied, and nothing compared."
    return PageVerdict(
        "database_away", "bad", "PostgreSQL is away", detail, since=evidence.database_away_since
    )


def _drift(evidence: Evidence) -> PageVerdict | None:
    proof = _last_proof(evidence)
    if proof is not None and _is_drift(proof):
        found = max(left(proof), 1)
        proofs = [audit for audit in _whole(evidence) if proves(audit)]
        detail = f"{_pairs(found)} although no event for them waits."
        return PageVerdict(
            "drift", "bad", f"Drift: {found:,}", detail, since=_first_of_last(proofs, _is_drift)
        )
    since = 0.0 if proof is None else proof.at
    scoped = [audit for audit in evidence.audits if audit.project_id is not None and audit.at > since]
    newest = {audit.project_id: audit for audit in scoped if proves(audit)}
    drifted = [audit for audit in newest.values() if _is_drift(audit)]
    if not drifted:
        return None
    found = sum(max(left(audit), 1) for audit in drifted)
    detail = f"{_pairs(found)} although no event for them waits, in {_projects(len(drifted))}."
    return PageVerdict("drift", "bad", f"Drift: {found:,}", detail, since=min(audit.at for audit in drifted))


def _pairs(count: int) -> str:
    return "One pair differs" if count == 1 else f"{count:,} pairs differ"


def _projects(count: int) -> str:
    return "a project that was audited alone" if count == 1 else f"{count} projects that were audited alone"


def _incomplete(evidence: Evidence) -> PageVerdict | None:
    whole = _whole(evidence)
    if not whole or proves(whole[-1]):
        return None
    detail = f"The last audit proves nothing: {whole[-1].error or 'it came to no end.'}"
    since = _first_of_last(whole, lambda audit: not proves(audit))
    return PageVerdict("incomplete", "warning", "Not proved", detail, since=since)


def _repaired(evidence: Evidence) -> PageVerdict | None:
    proof = _last_proof(evidence)
    if proof is None or proof.verdict != "repaired":
        return None
    repaired = "One pair was" if proof.repaired == 1 else f"{proof.repaired:,} pairs were"
    detail = f"{repaired} repaired and compared again. Clean is only what the next audit finds clean."
    return PageVerdict("repaired", "warning", "Repaired", detail, since=proof.at)


def _unverified(evidence: Evidence) -> PageVerdict | None:
    if _last_proof(evidence) is not None:
        return None
    return PageVerdict("unverified", "unknown", "Not verified", "No audit has compared all pairs yet.")


def _outdated(evidence: Evidence) -> PageVerdict | None:
    proof = _last_proof(evidence)
    if proof is None:
        return None
    bound = outdated_after(proof.duration_seconds)
    if evidence.now - proof.at <= bound:
        return None
    detail = f"No audit of all pairs has ended for over {bound / 60:.0f} minutes."
    return PageVerdict("outdated", "warning", "Out of date", detail, since=proof.at + bound)


def _late(evidence: Evidence) -> PageVerdict | None:
    oldest = evidence.waiting["live"].oldest_seconds
    if oldest is None or oldest <= LATE_AFTER_SECONDS or evidence.last_heartbeat_at is None:
        return None
    detail = f"A user's write has waited for {oldest:,.0f} seconds to reach project_collections."
    since = evidence.last_heartbeat_at - oldest + LATE_AFTER_SECONDS
    return PageVerdict("late", "warning", "Late", detail, since=since)


def _in_sync(evidence: Evidence) -> PageVerdict:
    whole = _whole(evidence)
    proof = whole[-1]
    detail = f"All {proof.compared:,} pairs agree."
    if proof.pending:
        way = "One is" if proof.pending == 1 else f"{proof.pending:,} are"
        detail = f"{proof.compared:,} pairs were compared. {way} on the way, and none has drifted."
    return PageVerdict("in_sync", "good", "In sync", detail, since=_first_of_last(whole, is_clean))


RULES: tuple[Callable[[Evidence], PageVerdict | None], ...] = (
    _blind,
    _database_away,
    _drift,
    _incomplete,
    _repaired,
    _unverified,
    _outdated,
    _late,
    _in_sync,
)

OBSTACLES: dict[str, str] = {
    "blind": "No heartbeat of any worker: nobody knows what waits.",
    "database_away": "No worker reaches PostgreSQL.",
    "drift": "The tables differ. Fix that with `python -m worker.audit --repair`.",
    "incomplete": "The last audit proves nothing. Audit again.",
    "repaired": "The last audit repaired something. Wait until another has passed.",
    "unverified": "No audit has compared all pairs yet. Run `python -m worker.audit`.",
    "outdated": "The last audit of all pairs is old. Run `python -m worker.audit`.",
}


def go_on(evidence: Evidence, answer: PageVerdict) -> GoOn:
    """Return whether the next step may be taken: only what is proved, quiet and complete allows it."""
    reasons = [OBSTACLES[answer.state]] if answer.state in OBSTACLES else []
    reasons += _waiting_reasons(evidence)
    if evidence.dead_letters_open:
        reasons.append(f"Dead letters are open: {evidence.dead_letters_open:,}. Replay or discard them.")
    reasons += [_backfill_reason(run) for run in _unfinished(evidence.backfills)]
    return GoOn(not reasons, reasons)


def _waiting_reasons(evidence: Evidence) -> list[str]:
    reasons = []
    oldest = evidence.waiting["live"].oldest_seconds
    if oldest is not None and oldest > LATE_AFTER_SECONDS:
        reasons.append(f"Users' writes are late: one has waited for {oldest:,.0f} seconds.")
    for lane, whose in (("repair", "repairs"), ("backfill", "backfills")):
        if pending := evidence.waiting[lane].pending:
            reasons.append(f"Events of {whose} wait: {pending:,}.")
    if evidence.unknown_version:
        reasons.append(
            f"Events of a later version wait: {evidence.unknown_version:,}. Deploy the worker that knows it."
        )
    return reasons


def _unfinished(backfills: list[Backfill]) -> list[Backfill]:
    """Return the runs that did not end, and after which no run has seen every row."""
    unfinished = []
    for run in backfills:
        if run.status == "finished" and run.project_id is None:
            break
        if run.status in UNFINISHED:
            unfinished.append(run)
    return unfinished


def _backfill_reason(run: Backfill) -> str:
    words = {"running": "is running", "paused": "is paused", "interrupted": "was interrupted"}[run.status]
    return f"Backfill {run.run_id} {words}: {run.processed:,} of {run.planned:,} rows."
