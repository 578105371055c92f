"""The last rollback, by its lines; a dry run is none."""

from shared.verdict.facts import Audit
from worker.dashboard.log_line import LogLine


class Rollbacks:
    """When one was last heard of, and when one last ended. Lines may come in any order."""

    def __init__(self) -> None:
        self.began_at: float | None = None
        self._heard_at = 0.0
        self._ended_at = 0.0

    def started(self, line: LogLine, at: float) -> None:  # noqa: ARG002 - the signature of a handler
        self.began_at = max(at, self.began_at or 0.0)
        self._heard_at = max(at, self._heard_at)

    def chunk(self, line: LogLine, at: float) -> None:
        if not line["dry_run"]:
            self.began_at = self.began_at or at
            self._heard_at = max(at, self._heard_at)

    def finished(self, line: LogLine, at: float) -> None:
        if not line["dry_run"]:
            self.began_at = self.began_at or at
            self._ended_at = max(at, self._ended_at)

    def last(self) -> Audit | None:
        """Return it as its record in `audit_runs` is: of one that has not ended, when it began."""
        if self.began_at is None:
            return None
        is_over = self._ended_at >= self._heard_at
        return rollback_record(self._ended_at if is_over else self.began_at, is_over=is_over)


def rollback_record(at: float, *, is_over: bool) -> Audit:
    """Return a rollback as its record in `audit_runs` is: of one that has not ended, when it began."""
    return Audit(
        id=0, status="finished" if is_over else "failed", verdict="incomplete", requested_by="rollback",
        project_id=None, repair=False, compared=0, found=0, pending=0, repaired=0, error=None,
        started_at=at, ended_at=at,
    )  # fmt: skip
