"""What the command prints for machines; the keys are documented."""

from shared.audit_runs import AuditRun
from shared.backfill_runs import BackfillRun
from worker.backfill.dry_run import DryRun


def as_json(run: BackfillRun) -> dict[str, object]:
    """Return what a machine wants to know of the run."""
    return {
        "run_id": run.id,
        "status": run.status,
        "processed": run.processed,
        "planned": run.planned,
        "enqueued": run.enqueued,
        "skipped": run.skipped,
        "missing": run.missing,
        "mismatched": run.mismatched,
        "orphaned": run.orphaned,
        "project_id": run.project_id,
        "rate": run.rate,
        "max_pending": run.max_pending,
        "in_worker": run.in_worker,
        "driver": run.driver,
        "is_driven": run.is_driven,
        "throttled_by": run.throttled_by,
        "slowed_by": run.slowed_by,
        "duration_seconds": round(run.duration_seconds, 3),
    }


def audit_as_json(audited: AuditRun | None) -> dict[str, object] | None:
    """Return what a machine wants to know of the audit that followed; None when it did not come to that."""
    if audited is None:
        return None
    return {
        "run_id": audited.id,
        "verdict": audited.verdict,
        "compared": audited.compared,
        "missing": audited.missing,
        "mismatched": audited.mismatched,
        "orphaned": audited.orphaned,
        "pending": audited.pending,
        "error": audited.error,
    }


def dry_run_as_json(result: DryRun) -> dict[str, object]:
    """Return the same counts as of a run, of what would have been enqueued."""
    return {
        "dry_run": True,
        "status": "finished" if result.finished else "interrupted",
        "processed": result.processed,
        "planned": result.planned,
        "enqueued": result.enqueued,
        "skipped": result.skipped,
        "missing": result.missing,
        "mismatched": result.mismatched,
        "orphaned": result.orphaned,
    }
