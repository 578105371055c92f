"""What a person at a terminal sees: a bar while it goes on, then a sentence and the counts."""

from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import TimeElapsedColumn
from rich.table import Table

from shared.audit_runs import AuditRun
from worker.audit.log import Progress, Watch
from worker.command_line.bar import Bar
from worker.settled import STALL_SECONDS


@contextmanager
def watching(console: Console) -> Iterator[Watch]:
    """Draw a bar while the block lasts; yields what is to be called with each Progress."""
    with Bar(console, TimeElapsedColumn()) as bar:
        bar.show("Audit: canary")

        def show(progress: Progress) -> None:
            steps = progress.chunks_planned + 1  # the last step is the verdict
            bar.show(f"Audit: {_detail(progress)}", progress.chunks_done, steps)

        yield show


def _detail(progress: Progress) -> str:
    if not progress.unsettled:
        return f"{progress.tally.compared:,} pairs  {progress.tally.found:,} differ"
    doubt = ""
    if progress.still_seconds > STALL_SECONDS:
        doubt = f"; none settled for {progress.still_seconds:.0f} s: is a worker running?"
    return f"{progress.unsettled:,} repair events wait{doubt}"


def sentence(run: AuditRun) -> str:
    """Return in one sentence what the audit proved."""
    kinds = f"{run.missing:,} missing, {run.mismatched:,} mismatched, {run.orphaned:,} orphaned"
    match run.verdict:
        case "in_sync":
            return f"In sync: all {run.compared:,} pairs agree."
        case "pending":
            return f"No drift: {run.pending:,} of {run.compared:,} pairs differ, and for each an event waits."
        case "repaired":
            return f"Repaired: {kinds}; all were fixed and compared again. Only the next audit can be clean."
        case "drift" if run.repair:
            return f"Drift is left: {kinds}; {run.repaired:,} repaired. {run.error}"
        case "drift":
            return f"Drift: {kinds}.{f' {run.error}' if run.error else ''}"
    return f"Incomplete, so it proves nothing: {run.error}"


def counts_table(run: AuditRun) -> Table:
    """Lay out the counts of a run; those of differences are as found, also where they were repaired."""
    table = Table(box=None, show_header=False, padding=(0, 2))
    table.add_column(justify="right")
    table.add_column()
    counts = [
        (run.compared, f"pairs compared, of {run.planned:,} planned"),
        (run.active_collections, "active collections"),
        (run.home_rows, "home rows"),
        (run.missing, "missing: active, without home row"),
        (run.mismatched, "mismatched: a column differs"),
        (run.orphaned, "orphaned: home row of no active collection"),
        (run.pending, "pending: differ, and an event waits"),
    ]
    if run.repair:
        counts.append((run.repaired, "repaired, and compared again"))
    for count, name in counts:
        table.add_row(f"{count:,}", name)
    table.add_row(f"{run.duration_seconds or 0:.1f}", f"seconds; audit run {run.id}")
    return table
