"""The lines of a watching audit: one a pass, with since when the verdict is what it is."""

from datetime import datetime

from shared.audit_runs import AuditRun
from shared.verdict.words import count
from worker.audit.findings import Finding

MOST_NAMED = 5


class WatchLines:
    """Remembers the pass before. `forget` it where passes are missing: nobody knows what was meanwhile."""

    def __init__(self) -> None:
        self._verdict: str | None = None
        self._since: datetime | None = None
        self._named: list[str] = []

    def forget(self) -> None:
        self._verdict = None

    def line(self, run: AuditRun, findings: list[Finding]) -> str:
        """Return the pass's line; where it differs from the one before, with the first ids and the reason."""
        named = [finding.collection_id for finding in findings[:MOST_NAMED]]
        is_new = run.verdict != self._verdict
        if is_new:
            self._verdict, self._since = run.verdict, run.finished_at
        words = [
            _clock(run.finished_at),
            f"{(run.verdict or run.status).replace('_', ' '):<10}",
            count(run.compared, "pair", "pairs"),
            *([count(run.found, "differs", "differ")] if run.found else []),
            f"{run.pending:,} pending",
            f"{run.duration_seconds or 0:.1f} s",
            f"since {_clock(self._since)}",
        ]
        if is_new or named != self._named:
            words += [", ".join(named) + (" …" if run.found > len(named) > 0 else ""), run.error or ""]
        self._named = named
        return "  ".join(filter(None, words))


def _clock(moment: datetime | None) -> str:
    return "--:--:--" if moment is None else f"{moment.astimezone():%H:%M:%S}"
