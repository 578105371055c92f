"""The progress bar that a person at a terminal sees."""

from types import TracebackType
from typing import Self

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TaskProgressColumn, TextColumn

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


class Bar:
    """Shows count, speed, remaining time and why a run waits, while the block lasts; call it with the run."""

    def __init__(self, console: Console) -> None:
        """Take the console to draw on; where that is no terminal nothing is drawn."""
        self._speed = Speed()
        self._task: TaskID | None = None
        self._progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            TaskProgressColumn(),
            TextColumn("{task.fields[detail]}"),
            TextColumn("{task.fields[reason]}", style="yellow", markup=False),
            console=console,
            disable=not console.is_terminal,
        )

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
        """Leave the last state standing."""
        self._progress.stop()

    def __call__(self, run: BackfillRun | DryRun) -> None:
        """Show how far the run is. Rows inserted since its start may make it do more than was planned."""
        speed = self._speed.sample(run.processed)
        total = max(run.planned, run.processed)
        detail = f"{run.processed:,}/{total:,} rows  {run.enqueued:,} enqueued"
        if speed is not None:
            detail += f"  {speed:,.0f} rows/s  {as_time(eta_seconds(run.planned, run.processed, speed))} left"
        if self._task is None:
            self._task = self._progress.add_task("Backfill", detail="", reason="")
        reason = run.throttled_by or ""
        self._progress.update(
            self._task,
            total=total,
            completed=run.processed,
            detail=detail,
            reason=reason,
            refresh=bool(reason),
        )
