"""One run as lines of a name and a value, and the newest runs as a table."""

from collections.abc import Iterator, Sequence

from rich.text import Text

from shared.backfill_runs import BackfillRun
from worker.backfill.speed import eta_seconds
from worker.backfill.terminal import as_time, held_back, kinds, percent, rate, run_by
from worker.command_line.columns import aligned
from worker.command_line.console import cell
from worker.command_line.verdict import tone

NAME_WIDTH = 14
HEADINGS = ("run", "state", "started (UTC)", "took", "done", "rows", "enqueued", "scope", "run by")


def status_lines(run: BackfillRun, rows_a_second: float | None) -> Iterator[Text]:
    """Yield the run line by line.

    Args:
        run: as it is now.
        rows_a_second: how fast it goes at the moment; None when that is not known.

    """
    for name, value in _rows(run, rows_a_second):
        shown = cell(value, f"bold {tone(run.status)}" if name == "state" else "")
        yield Text.assemble(f"{name:<{NAME_WIDTH}}", shown)


def _rows(run: BackfillRun, rows_a_second: float | None) -> Iterator[tuple[str, str]]:
    left = eta_seconds(run.planned, run.processed, rows_a_second)
    yield "backfill", str(run.id)
    yield "state", _state(run)
    yield "progress", f"{percent(run)}: {run.processed:,} of {run.planned:,} rows"
    yield "enqueued", f"{run.enqueued:,}: {kinds(run)}"
    yield "skipped", f"{run.skipped:,}: in sync, or on their way"
    yield "speed", "-" if rows_a_second is None else rate(rows_a_second)
    yield "time left", as_time(left)
    yield "held back", _brake(run)
    yield "run by", run_by(run)
    yield "scope", _scope(run)
    yield "limits", f"{_bound(run)}; {run.max_pending:,} pending events"
    yield "started", f"{run.started_at:%Y-%m-%d %H:%M:%S} UTC, {as_time(run.duration_seconds)} in all"


def _brake(run: BackfillRun) -> str:
    if not run.is_driven:
        return "-"
    return held_back(run) or "by nothing: it goes as fast as PostgreSQL takes it"


def _bound(run: BackfillRun) -> str:
    return "any speed" if run.rate is None else rate(run.rate)


def _scope(run: BackfillRun) -> str:
    return "all projects" if run.project_id is None else f"project {run.project_id}"


def _state(run: BackfillRun) -> str:
    if run.status != "running" or run.is_driven:
        return run.status
    if not run.has_driver:
        return "waits for a worker" if run.in_worker else "left unfinished: go on with --resume"
    return f"its driver has been silent for {run.heartbeat_age_seconds:.0f} s: go on with --resume"


def list_lines(runs: Sequence[BackfillRun]) -> list[Text]:
    """Return a table of runs."""
    return aligned(HEADINGS, [_columns(run) for run in runs])


def _columns(run: BackfillRun) -> list[Text]:
    return [
        cell(str(run.id)),
        cell(run.status, tone(run.status)),
        cell(f"{run.started_at:%Y-%m-%d %H:%M:%S}"),
        cell(as_time(run.duration_seconds)),
        cell(percent(run)),
        cell(f"{run.processed:,}"),
        cell(f"{run.enqueued:,}"),
        cell(_scope(run)),
        cell(run_by(run)),
    ]
