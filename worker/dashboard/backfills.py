"""The backfill runs, by their lines; several processes may drive one after another."""

from dataclasses import dataclass

from worker.dashboard.log_line import LogLine, cut
from worker.dashboard.page_state import Backfill

MOST_RUNS = 20
LONGEST_ID = 200
LONGEST_TEXT = 500
ENDS = {
    "backfill_finished": "finished",
    "backfill_paused": "paused",
    "backfill_cancelled": "cancelled",
    "backfill_interrupted": "interrupted",
}


@dataclass(slots=True)
class KnownRun:
    """One run, and when the things that are known of it were said."""

    shown: Backfill
    status_at: float = 0.0
    driven_at: float = 0.0
    progress_at: float = 0.0
    throttle_at: float = 0.0
    totals_at: float = 0.0
    ended_seconds: float | None = None
    is_in_worker: bool = False


class Backfills:
    """The newest runs. Lines may come in any order: the newer ones count."""

    def __init__(self) -> None:
        self._runs: dict[int, KnownRun] = {}
        self.whole_finished_at: float | None = None

    def newest(self) -> KnownRun | None:
        """Return the run that was started last."""
        return max(self._runs.values(), key=lambda run: run.shown.started_at or run.shown.at, default=None)

    def _of(self, line: LogLine, at: float) -> KnownRun:
        run_id = line["run_id"]
        if run_id not in self._runs:
            self._runs[run_id] = KnownRun(Backfill(run_id, "running", None, at, 0, 0, 0, 0))
            if len(self._runs) > MOST_RUNS:
                del self._runs[min(self._runs)]
        run = self._runs.get(run_id) or KnownRun(Backfill(run_id, "running", None, at, 0, 0, 0, 0))
        run.shown.at = max(at, run.shown.at)
        return run

    def _is(self, run: KnownRun, status: str, at: float) -> None:
        if at >= run.status_at:
            run.status_at, run.shown.status = at, status
        if at >= run.throttle_at:
            run.throttle_at, run.shown.throttled_by = at, None

    def _progress(self, run: KnownRun, line: LogLine, at: float) -> None:
        run.shown.processed = max(line["processed"], run.shown.processed)
        if at >= run.progress_at:
            run.progress_at, run.shown.planned = at, line["planned"]
            run.shown.rows_a_second = line.get("rows_a_second")
            run.shown.eta_seconds = line.get("eta_seconds")

    def started(self, line: LogLine, at: float) -> None:
        """Take `backfill_started`, also that of a process which resumes the run."""
        run = self._of(line, at)
        run.shown.started_at = min(at, run.shown.started_at or at)
        run.shown.project_id = None if line["project_id"] is None else cut(line["project_id"], LONGEST_ID)
        self._progress(run, line, at)
        if at >= run.driven_at:
            run.driven_at = at
            run.shown.driver = None if line["driver"] is None else cut(line["driver"], LONGEST_ID)
            run.is_in_worker = line.get("process") == "worker"
        self._is(run, "running", at)
        self._note_whole(run)

    def chunk(self, line: LogLine, at: float) -> None:
        run = self._of(line, at)
        self._progress(run, line, at)
        if at > run.totals_at:
            run.shown.enqueued += line["enqueued"]
            run.shown.skipped += line["skipped"]
        self._is(run, "running", at)

    def throttled(self, line: LogLine, at: float) -> None:
        run = self._of(line, at)
        if at >= run.throttle_at:
            run.throttle_at = at
            run.shown.throttled_by = cut(line["reason"], LONGEST_TEXT) if "reason" in line else None

    def counted(self, line: LogLine, at: float) -> None:
        """Take a line with the run's totals: its end, its interruption, or that another drives it now."""
        run = self._of(line, at)
        self._progress(run, line, at)
        if at >= run.totals_at:
            run.totals_at = at
            run.shown.enqueued, run.shown.skipped = line["enqueued"], line["skipped"]
            run.ended_seconds = line["duration_seconds"]
        if line["event"] in ENDS:
            self._is(run, ENDS[line["event"]], at)
            self._note_whole(run)

    def _note_whole(self, run: KnownRun) -> None:
        """Note the end of a run of all projects; only its beginning says that it is one."""
        shown = run.shown
        if shown.status == "finished" and shown.started_at is not None and shown.project_id is None:
            self.whole_finished_at = max(run.status_at, self.whole_finished_at or 0.0)

    def shown(self) -> list[Backfill]:
        for run in self._runs.values():
            seen = None if run.shown.started_at is None else run.shown.at - run.shown.started_at
            ended = run.shown.status != "running" and run.ended_seconds is not None
            run.shown.duration_seconds = run.ended_seconds if ended else seen
        return [run.shown for _, run in sorted(self._runs.items(), reverse=True)]
