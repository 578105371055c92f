"""What a person at a terminal sees: a bar while it goes on, then a sentence, the counts and the findings."""

from types import TracebackType
from typing import Self

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.progress import BarColumn, TextColumn, TimeElapsedColumn
from rich.progress import Progress as RichProgress
from rich.table import Table
from rich.text import Text

from shared.audit_runs import AuditRun
from worker.audit.findings import Finding
from worker.audit.pair import COLUMNS
from worker.audit.report import Progress
from worker.command_line.console import cell

MOST_SHOWN = 20
LONGEST_SHOWN = 80
UUID_WIDTH = 39  # with the "of" before it
SECONDS_BEFORE_DOUBT = 3


class Bar:
    """Shows how far an audit is, while the block lasts; call it with each Progress."""

    def __init__(self, console: Console) -> None:
        """Take the console to draw on; where that is no terminal nothing is drawn."""
        self._progress = RichProgress(
            TextColumn("{task.description}", markup=False),
            BarColumn(),
            TextColumn("{task.fields[detail]}", markup=False),
            TimeElapsedColumn(),
            console=console,
            transient=True,
            disable=not console.is_terminal,
        )
        self._task = self._progress.add_task("Audit", total=None, detail="canary")

    def __enter__(self) -> Self:
        """Begin to draw."""
        self._progress.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Leave the terminal as it was."""
        self._progress.stop()

    def __call__(self, progress: Progress) -> None:
        """Show how far it is, and whether repair events are settled at all."""
        if progress.unsettled:
            doubt = ""
            if progress.still_seconds > SECONDS_BEFORE_DOUBT:
                doubt = f"; none settled for {progress.still_seconds:.0f} s: is a worker running?"
            detail = f"{progress.unsettled:,} repair events wait{doubt}"
        else:
            detail = f"{progress.tally.compared:,} pairs  {progress.tally.found:,} differ"
        self._progress.update(
            self._task,
            total=progress.chunks_planned + 1,  # the last step is the verdict
            completed=progress.chunks_done,
            detail=detail,
        )


def sentence(run: AuditRun) -> str:
    """Say in one sentence what the audit proved, and what to do next."""
    kinds = f"{run.missing:,} missing, {run.mismatched:,} mismatched, {run.orphaned:,} orphaned"
    match run.verdict:
        case "in_sync":
            return f"In sync: all {run.compared:,} pairs agree."
        case "pending":
            return f"No drift: {run.pending:,} of {run.compared:,} pairs differ, and for each an event waits."
        case "repaired":
            return f"Repaired: {kinds}; all were mended and compared again. Only the next pass can be clean."
        case "drift" if run.repair:
            return f"Drift is left: {kinds}; {run.repaired:,} repaired. {run.error}"
        case "drift":
            return f"Drift: {kinds}. Mend it with --repair.{f' {run.error}' if run.error else ''}"
    return f"Incomplete, so it proves nothing: {run.error}"


def counts_table(run: AuditRun) -> Table:
    """Show the counts of a run; those of differences are as found, also where they were repaired."""
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
    """Show findings with what the target holds and what it should hold, column by column."""
    table = Table(box=SIMPLE_HEAD, show_edge=False, expand=True)
    table.add_column("finding", min_width=UUID_WIDTH, overflow="fold")
    table.add_column("target holds", overflow="fold", ratio=1)
    table.add_column("legacy holds", overflow="fold", ratio=1)
    for finding in findings:
        outcome = f", {finding.outcome.replace('_', ' ')}" if finding.outcome else ""
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
