"""What a person at a terminal sees: a bar while the log is read, then the answers and a summary."""

import time
from datetime import UTC, datetime

from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table
from rich.text import Text

from shared.process.printable import printable
from worker.dashboard.page_state import Audit, LaneTotals, LogSource, PageState

REDRAW_SECONDS = 0.1
TONES = {"good": "green", "busy": "blue", "warning": "yellow", "bad": "red", "unknown": "blue"}


def bar(console: Console) -> Progress:
    """Return a bar over the bytes of the logs; where the console is no terminal nothing is drawn."""
    return Progress(
        TextColumn("Reading"),
        BarColumn(),
        DownloadColumn(binary_units=True),
        TimeRemainingColumn(),
        console=console,
        transient=True,
        disable=not console.is_terminal,
    )


class ReadingBar:
    """Moves a bar; call it after each chunk."""

    def __init__(self, progress: Progress, source: LogSource) -> None:
        self._progress = progress
        self._source = source
        self._task = progress.add_task("read", total=None)
        self._moved_at = 0.0

    def __call__(self) -> None:
        """Draw, but not more often than one can see; take the bar away at the end."""
        done = self._source.bytes_read >= self._source.bytes_total
        if done or time.monotonic() - self._moved_at >= REDRAW_SECONDS:
            self._moved_at = time.monotonic()
            self._progress.update(
                self._task, completed=self._source.bytes_read, total=max(self._source.bytes_total, 1)
            )


def show(console: Console, page_state: PageState) -> None:
    verdict = page_state.verdict
    console.print(Text(printable(verdict.detail), f"bold {TONES[verdict.tone]}"))
    console.print("You may go on." if page_state.go_on.may else "Do not go on. Next:")
    for step in verdict.next_steps:
        console.print(Text(f"  {printable(step)}"))
    for reason in page_state.go_on.reasons:
        if reason != verdict.detail:
            console.print(Text(f"  - {printable(reason)}"))
    console.print(_summary(page_state))


def _summary(page_state: PageState) -> Table:
    table = Table(box=None, show_header=False, padding=(0, 2))
    table.add_column()
    table.add_column(overflow="fold")
    for name, value in _rows(page_state):
        table.add_row(name, Text(printable(value)))
    return table


def _rows(page_state: PageState) -> list[tuple[str, str]]:
    source, verdict, now = page_state.source, page_state.verdict, page_state.made_at
    running = sum(worker.state == "running" for worker in page_state.workers)
    return [
        ("verified", _moment(verdict.verified_at, now)),
        ("last heartbeat", _moment(verdict.last_heartbeat_at, now)),
        ("last line", _moment(source.last_at, now)),
        *_audit_rows([audit for audit in page_state.audits if audit.project_id is None]),
        *((lane.name, _lane(lane)) for lane in page_state.lanes if lane.batches),
        ("dead letters open", f"{page_state.dead_letters_open:,}"),
        *(
            (f"backfill {run.run_id}", f"{run.status}, {run.processed:,} of {run.planned:,} rows")
            for run in page_state.backfills[:1]
        ),
        *_cutover_rows(page_state),
        ("workers", f"{running} running, {len(page_state.workers)} known"),
        *([("not read", f"{len(source.unread)} files")] if source.unread else []),
        ("lines", f"{source.lines:,}, {source.broken:,} broken, {source.unknown:,} unknown"),
    ]


def _audit_rows(whole: list[Audit]) -> list[tuple[str, str]]:
    counts = ("compared", "missing", "mismatched", "orphaned", "pending", "repaired")
    return [
        ("last audit", ", ".join(f"{_counted(getattr(audit, count))} {count}" for count in counts))
        for audit in whole[-1:]
    ]


def _cutover_rows(page_state: PageState) -> list[tuple[str, str]]:
    cutover = page_state.cutover
    if cutover is None:
        return []
    rows = [
        ("phase", f"{cutover.number}. {cutover.title}, since {_moment(cutover.since, page_state.made_at)}")
    ]
    if cutover.lost is not None:
        lost = ", ".join(f"{value:,} {kind.replace('_', ' ')}" for kind, value in cutover.lost.items())
        rows.append(("going back loses", lost))
    return rows


def _counted(value: int | None) -> str:
    return "\N{EN DASH}" if value is None else f"{value:,}"


def _lane(lane: LaneTotals) -> str:
    settled = ", ".join(f"{count:,} {outcome}" for outcome, count in lane.outcomes.items() if count)
    lag = f"lag p50 {_ms(lane.lag_ms['p50'])}, p99 {_ms(lane.lag_ms['p99'])}"
    return f"{settled or 'none settled'}; {lag}"


def _moment(at: float | None, now: float) -> str:
    if at is None:
        return "never"
    local = datetime.fromtimestamp(at, UTC).astimezone()
    return f"{_ago(max(now - at, 0))} ago ({local:%Y-%m-%d %H:%M:%S %Z})"


def _ago(seconds: float) -> str:
    for unit, size in (("days", 86_400), ("hours", 3600), ("minutes", 60)):
        if seconds >= 2 * size:
            return f"{seconds / size:.0f} {unit}"
    return f"{seconds:.0f} s"


def _ms(value: float | None) -> str:
    return "unknown" if value is None else f"{value:,.1f} ms"
