"""The log lines of an audit, and the progress that a terminal shows."""

import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

import structlog

from shared.audit_runs import AuditRun
from worker.audit.comparison import Tally
from worker.audit.findings import Finding
from worker.audit.repair import Outcomes

logger = structlog.get_logger(__name__)

LONGEST_TEXT = 200
SECONDS_BETWEEN_LINES = 1


@dataclass(frozen=True, slots=True)
class Progress:
    """How far an audit is: chunks done of planned and what they counted; repair events not settled yet.

    still_seconds: since the last repair event was settled; 0 while none is waited for.
    """

    run_id: int
    chunks_done: int
    chunks_planned: int
    tally: Tally
    unsettled: int = 0
    still_seconds: float = 0.0


Watch = Callable[[Progress], None]


def _no_watch(_progress: Progress) -> None:
    pass


class RunLog:
    """Logs one run, of its progress at most one line a second, and hands each Progress to a watcher."""

    def __init__(self, run: AuditRun, watch: Watch | None) -> None:
        self._log = logger.bind(run_id=run.id)
        self._run = run
        self._watch = watch or _no_watch
        self._silent_until = 0.0

    def started(self, chunks_planned: int) -> None:
        """Log what is to be audited."""
        run = self._run
        options = {"project_id": run.project_id, "repair": run.repair, "requested_by": run.requested_by}
        self._log.info("audit_started", **options, chunks_planned=chunks_planned)
        self._watch(Progress(run.id, 0, chunks_planned, Tally()))

    def progress(self, progress: Progress) -> None:
        """Log how far it is, unless a line of the last second says so."""
        self._watch(progress)
        if time.monotonic() >= self._silent_until:
            self._silent_until = time.monotonic() + SECONDS_BETWEEN_LINES
            counts = {"unsettled": progress.unsettled, "still_seconds": round(progress.still_seconds, 1)}
            chunks = {"chunks_done": progress.chunks_done, "chunks_planned": progress.chunks_planned}
            self._log.info("audit_progress", **chunks, **progress.tally.recorded, **counts)

    def found(self, findings: list[Finding]) -> None:
        """Log each finding, with long texts cut."""
        for finding in findings:
            self._log.warning(
                "audit_finding",
                collection_id=finding.collection_id,
                project_id=finding.project_id,
                kind=finding.kind,
                differs=finding.differs,
                dead_letter=finding.dead_letter,
                legacy=_bounded(finding.legacy),
                target=_bounded(finding.target),
            )

    def repair_appended(self, appended: int, without_collection: int, passed_over: int) -> None:
        """Log how many events a transaction appended, and how many findings are of no collection.

        No event can describe those. Those whose event died were passed over.
        """
        self._log.info(
            "audit_repair_appended",
            appended=appended,
            without_collection=without_collection,
            passed_over=passed_over,
        )

    def repair_verified(self, outcomes: Outcomes, findings: list[Finding]) -> None:
        """Log what comparing the repaired pairs again showed, and each of `findings` as it is now."""
        for finding in findings:
            log = self._log.info if finding.outcome == "repaired" else self._log.warning
            log(
                "audit_finding_repaired",
                collection_id=finding.collection_id,
                project_id=finding.project_id,
                kind=finding.kind,
                outcome=finding.outcome,
                target=_bounded(finding.target),
            )
        log = self._log.warning if outcomes.still_differs or outcomes.pending else self._log.info
        log("audit_repair_verified", **asdict(outcomes))

    def finished(self, run: AuditRun, listed: int) -> None:
        """Log the verdict and all counts; `listed` of what was found has a line of its own."""
        proved = run.status == "finished" and run.verdict not in {"drift", "incomplete"}
        log = self._log.info if proved else self._log.error
        names = (
            "status", "verdict", "error", "project_id", "repair", "requested_by", "chunks_planned",
            "chunks_done", *Tally().recorded, "repaired", "canary_found",
        )  # fmt: skip
        log(
            "audit_finished",
            **{name: getattr(run, name) for name in names},
            unlisted=max(run.found - listed, 0),
            duration_ms=round((run.duration_seconds or 0) * 1000, 3),
        )


def _bounded(side: dict[str, Any] | None) -> dict[str, Any] | None:
    if side is None:
        return None
    return {name: value[:LONGEST_TEXT] if isinstance(value, str) else value for name, value in side.items()}
