"""What a person at a terminal sees: a bar while it goes on, then a sentence, the counts and the findings."""

from collections.abc import Iterator
from contextlib import contextmanager

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.progress import TimeElapsedColumn
from rich.table import Table
from rich.text import Text

from shared.audit_runs import AuditRun
from shared.pair import COLUMNS
from worker.audit.findings import Finding
from worker.audit.log import Progress, Watch
from worker.command_line.bar import Bar
from worker.command_line.console import cell
from worker.settled import STALL_SECONDS

MOST_SHOWN = 20
LONGEST_SHOWN = 80
UUID_WIDTH = 39  # with the "of" before it


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
    """Return in one sentence what the audit proved, and what to do next."""
    kinds = f"{run.missing:,} missing, {run.mismatched:,} mismatched, {run.orphaned:,} orphaned"
    match run.verdict:
        case "in_sync":
            return f"In sync: all {run.compared:,} pairs agree."
        case "pending":
            return f"No drift: {run.pending:,} of {run.compared:,} pairs differ, and for each an event waits."
        case "repaired":
            return f"Repaired: {kinds}; all were fixed and compared again. Only the next pass can be clean."
        case "drift" if run.repair:
            return f"Drift is left: {kinds}; {run.repaired:,} repaired. {run.error}"
        case "drift":
            fix = [] if "--repair" in (run.error or "") else ["Fix it with --repair."]
            return " ".join([f"Drift: {kinds}.", *fix, *filter(None, [run.error])])
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


def findings_table(findings: list[Finding], run: AuditRun) -> Table:
    """Lay out findings with what the target holds and what it should hold, column by column."""
    table = Table(box=SIMPLE_HEAD, show_edge=False, expand=True)
    table.add_column("finding", min_width=UUID_WIDTH, overflow="fold")
    table.add_column("target holds", overflow="fold", ratio=1)
    table.add_column("legacy holds", overflow="fold", ratio=1)
    for finding in findings:
        outcome = f", {finding.outcome.replace('_', ' ')}" if finding.outcome else ""
        if finding.dead_letter is not None:
            outcome += f", its event died: dead letter {finding.dead_letter}"
        table.add_row(
            _lines(f"{finding.kind}{outcome}", finding.collection_id, f"of {finding.project_id}"),
            _shown(finding.target, finding.differs),
            _shown(finding.legacy, finding.differs),
        )
    if run.found > len(findings):
        table.caption = f"The first {len(findings)} of {run.found:,}; more in the table audit_findings."
    return table


def _shown(side: dict[str, object] | None, differs: list[str]) -> Text:
    if side is None:
        return Text("no row", style="dim")
    # Where the whole row is missing or too much, its first column says enough.
    names = differs if len(differs) < len(COLUMNS) else COLUMNS[:1]
    return _lines(*(f"{name}: {_literal(side[name])}" for name in names))


def _lines(*lines: str) -> Text:
    return Text("\n").join(map(cell, lines))


def _literal(value: object) -> str:
    if value is None:
        return "NULL"
    literal = repr(str(value))
    return literal if len(literal) <= LONGEST_SHOWN else f"{literal[:LONGEST_SHOWN]}…"
