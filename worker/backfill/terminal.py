"""What the command prints: its progress, its results for people and for machines, and what to do next."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console

from shared.audit_runs import AuditRun
from shared.backfill_runs import BackfillRun
from worker.backfill.dry_run import DryRun
from worker.backfill.speed import Speed, eta_seconds
from worker.command_line.bar import Bar

GOOD_VERDICTS = ("in_sync", "pending")  # pending: live writes on their way
RESUME_OR_CANCEL = "Go on with `python -m worker.backfill --resume`, or give it up with --cancel."


@contextmanager
def watching(console: Console) -> Iterator[Callable[[BackfillRun | DryRun], None]]:
    """Draw a bar while the block lasts; yields what is to be called with the run as it goes on."""
    speed = Speed()
    with Bar(console, stays=True) as bar:

        def show(run: BackfillRun | DryRun) -> None:
            total = max(run.planned, run.processed)  # rows inserted since its start may be among them
            share = run.processed / total if total else 1
            shown = f"{share:4.0%} {run.processed:,}/{total:,} rows  {run.enqueued:,} enqueued"
            rows_a_second = speed.sample(run.processed)
            if rows_a_second is not None:
                left = as_time(eta_seconds(run.planned, run.processed, rows_a_second))
                shown += f"  {rows_a_second:,.0f} rows/s  {left} left"
            bar.show(shown, run.processed, total, run.throttled_by or "")

        yield show


def as_time(seconds: float | None) -> str:
    """Return h:mm:ss, or `--:--` when it is not known."""
    if seconds is None:
        return "--:--"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


def as_json(run: BackfillRun) -> dict[str, object]:
    """Return what a machine wants to know of the run; its keys are documented."""
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


def audit_summary(audited: AuditRun) -> str:
    """Return in one sentence what the audit that followed found."""
    counts = f"{kinds(audited)}, {audited.pending:,} pending"
    why = "" if audited.error is None else f" ({audited.error})"
    return f"Audit {audited.id}: {audited.verdict}{why}; {audited.compared:,} pairs compared: {counts}."


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


def kinds(counted: BackfillRun | DryRun | AuditRun) -> str:
    """Return how many rows of each kind there were, in words."""
    return f"{counted.missing:,} missing, {counted.mismatched:,} mismatched, {counted.orphaned:,} orphaned"


def summary(run: BackfillRun) -> str:
    """Return in one sentence what the run has done."""
    return (
        f"Backfill {run.id}: {run.processed:,} of {run.planned:,} rows looked at, {run.enqueued:,} enqueued"
        f" ({kinds(run)}), {run.skipped:,} needed nothing; {as_time(run.duration_seconds)}."
    )


def dry_run_summary(result: DryRun) -> str:
    """Return in one sentence what a run would do."""
    return (
        f"Dry run: of {result.processed:,} rows {result.enqueued:,} would be enqueued ({kinds(result)}),"
        f" {result.skipped:,} need nothing. Nothing was written."
    )


def what_now(run: BackfillRun) -> str:
    """Return in which state an unfinished or cancelled run was left, and what to do next."""
    if run.status == "paused":
        return f"Backfill {run.id} is paused. {RESUME_OR_CANCEL}"
    if run.status == "cancelled":
        return f"Backfill {run.id} was cancelled. A new one begins anew; what is in sync costs it nothing."
    if run.is_driven:
        return f"Backfill {run.id} is being driven by {run.driver}. Stop it there, or with --pause."
    if not run.has_driver and run.in_worker:
        return f"Backfill {run.id} waits for a worker. Start one, or go on here with --resume."
    if not run.has_driver:
        return f"Backfill {run.id} is not finished. {RESUME_OR_CANCEL}"
    return (
        f"Backfill {run.id} is not finished, and its driver {run.driver} has been silent for"
        f" {run.heartbeat_age_seconds:.0f} s. {RESUME_OR_CANCEL}"
    )


def status_lines(run: BackfillRun, rows_a_second: float | None) -> list[str]:
    """Return the run as lines of a name and a value.

    Args:
        run: as it is now.
        rows_a_second: how fast it goes at the moment; None when that is not known.

    """
    share = min(1.0, run.processed / run.planned) if run.planned else 1.0
    pace = "-" if rows_a_second is None else f"{rows_a_second:,.0f} rows/s"
    shown = {
        "backfill": str(run.id),
        "state": _state(run),
        "progress": f"{share:.1%}: {run.processed:,} of {run.planned:,} rows",
        "enqueued": f"{run.enqueued:,}: {kinds(run)}",
        "skipped": f"{run.skipped:,}: in sync, or on their way",
        "speed": pace,
        "time left": as_time(eta_seconds(run.planned, run.processed, rows_a_second)),
        "throttled by": run.throttled_by or "-",
        "driver": run.driver or "none yet",
        "scope": "all projects" if run.project_id is None else f"project {run.project_id}",
        "limits": f"{_rate(run)}; {run.max_pending:,} pending events",
        "left to": "the workers" if run.in_worker else "the command",
        "started": f"{run.started_at:%Y-%m-%d %H:%M:%S} UTC, {as_time(run.duration_seconds)} in all",
    }
    return [f"{name:<14}{value}" for name, value in shown.items()]


def _rate(run: BackfillRun) -> str:
    return "any speed" if run.rate is None else f"{run.rate:,} rows/s"


def _state(run: BackfillRun) -> str:
    if run.status != "running" or run.is_driven:
        return run.status
    if not run.has_driver:
        return "waits for a worker" if run.in_worker else "left unfinished: go on with --resume"
    return f"its driver has been silent for {run.heartbeat_age_seconds:.0f} s: go on with --resume"
