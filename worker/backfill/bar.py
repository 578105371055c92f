"""The progress bar that a person at a terminal sees."""

from collections.abc import Iterable
from types import TracebackType
from typing import Self

from rich.console import Console, RenderableType
from rich.progress import BarColumn, Progress, TaskID, TaskProgressColumn, TextColumn
from rich.text import Text

from shared.backfill_runs import BackfillRun
from worker.backfill.dry_run import DryRun
from worker.backfill.progress import Speed, eta_seconds


def as_time(seconds: float | None) -> str:
    """Return h:mm:ss, or `--:--` when it is not known."""
    if seconds is None:
        return "--:--"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


class Lines(Progress):
    """The bar, and below it why the run waits."""

    reason = ""

    def get_renderables(self) -> Iterable[RenderableType]:
        """Return what is drawn now."""
        yield from super().get_renderables()
        if self.reason:
            yield Text(f"waits: {self.reason}", style="yellow", no_wrap=True, overflow="ellipsis")


class Bar:
    """Shows count, speed, remaining time and why a run waits, while the block lasts; call it with the run."""

    def __init__(self, console: Console) -> None:
        """Take the console to draw on; where that is no terminal nothing is drawn."""
        self._speed = Speed()
        self._task: TaskID | None = None
        self._lines = Lines(
            BarColumn(bar_width=20),
            TaskProgressColumn(),
            TextColumn("{task.description}", markup=False),
            console=console,
            disable=not console.is_terminal,
        )

    def __enter__(self) -> Self:
        """Begin to draw."""
        self._lines.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Leave the last state standing."""
        self._lines.stop()

    def __call__(self, run: BackfillRun | DryRun) -> None:
        """Show how far the run is. Rows inserted since its start may make it do more than was planned."""
        speed = self._speed.sample(run.processed)
        total = max(run.planned, run.processed)
        shown = f"{run.processed:,}/{total:,} rows  {run.enqueued:,} enqueued"
        if speed is not None:
            left = as_time(eta_seconds(run.planned, run.processed, speed))
            shown += f"  {speed:,.0f} rows/s  {left} left"
        if self._task is None:
            self._task = self._lines.add_task("")
        self._lines.reason = run.throttled_by or ""
        self._lines.update(self._task, total=total, completed=run.processed, description=shown)
