"""What ran, out of the log: the same as the database's tables of runs say, as far as lines were read."""

from collections.abc import Sequence

from shared.verdict import facts
from shared.verdict.facts import History
from worker.dashboard import page_state
from worker.dashboard.audits import Audits, Findings
from worker.dashboard.backfills import Backfills, KnownRun
from worker.dashboard.rollbacks import Rollbacks

ENDED = {"finished", "cancelled"}


def history_of(
    audits: Audits, findings: Findings, backfills: Backfills, rollbacks: Rollbacks, now: float
) -> History:
    """Return what the rules of the verdict ask for; what no line was read of is as if it had not been."""
    back = rollbacks.last()
    ended = [_fact(audit) for audit in audits.ended]
    whole = [audit for audit in ended if audit.project_id is None]
    last = whole[-1] if whole else None
    proof = next((audit for audit in reversed(whole) if audit.proves), None)
    run = backfills.newest()
    return History(
        backfill=None if run is None else _run(run, rollbacks.began_at),
        backfilled_at=_backfilled_at(backfills, rollbacks.began_at),
        whole=last,
        proof=proof,
        rollback=back,
        mended_at=max((audit.ended_at for audit in ended if audit.repaired), default=None),
        drifted=_drifted(ended, 0.0 if proof is None else proof.ended_at),
        is_auditing=audits.is_under_way(now),
        findings=frozenset() if last is None else findings.left_by(last.id),
    )


def _fact(audit: page_state.Audit) -> facts.Audit:
    found = (audit.missing or 0) + (audit.mismatched or 0) + (audit.orphaned or 0)
    verdict = audit.verdict
    if verdict in {"in_sync", "pending"} and found > (audit.repaired or 0):
        verdict = "drift"  # whatever the line calls it
    return facts.Audit(
        id=audit.run_id,
        status="failed" if audit.verdict is None else "finished",
        verdict=verdict,
        requested_by=audit.requested_by,
        project_id=audit.project_id,
        repair=audit.repair,
        compared=audit.compared or 0,
        found=found,
        pending=audit.pending or 0,
        repaired=audit.repaired or 0,
        error=audit.error,
        started_at=audit.at - audit.duration_seconds,
        ended_at=audit.at,
    )


def _run(run: KnownRun, rolled_back_at: float | None) -> facts.Backfill:
    """Return a run as `backfill_runs` has it: a rollback cancels what it finds, ended or not."""
    shown = run.shown
    is_cancelled = rolled_back_at is not None and rolled_back_at > run.status_at
    status = "cancelled" if is_cancelled else "running" if shown.status == "interrupted" else shown.status
    finished_at = run.status_at if shown.status in ENDED else rolled_back_at
    return facts.Backfill(
        id=shown.run_id,
        status=status,
        in_worker=run.is_in_worker,
        project_id=shown.project_id,
        planned=shown.planned,
        processed=shown.processed,
        throttled_by=shown.throttled_by,
        has_let_go=shown.status == "interrupted",
        started_at=shown.at if shown.started_at is None else shown.started_at,
        heard_at=shown.at,
        finished_at=finished_at if status in ENDED else None,
    )


def _backfilled_at(backfills: Backfills, rolled_back_at: float | None) -> float | None:
    """Return when the last run of all projects finished; one whose scope no line says does not count."""
    at = backfills.whole_finished_at
    return None if at is None or (rolled_back_at is not None and rolled_back_at > at) else at


def _drifted(ended: Sequence[facts.Audit], since: float) -> list[facts.Audit]:
    newest = {
        audit.project_id: audit
        for audit in ended
        if audit.project_id is not None and audit.proves and audit.ended_at > since
    }
    return [audit for audit in newest.values() if audit.has_drift]
