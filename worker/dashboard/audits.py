"""The audits that ended, and the pairs they found to differ."""

from bisect import insort
from collections import OrderedDict
from typing import Any

from worker.dashboard.log_line import BrokenLineError, LogLine, cut
from worker.dashboard.page_state import Audit, Finding

MOST_AUDITS = 300
MOST_UNCLEAN_AUDITS = 300
MOST_FINDINGS = 500
MOST_UNDER_WAY = 20
LONGEST_ID = 200
LONGEST_TEXT = 500
MOST_COLUMNS = 10
CLEAN = ("in_sync", "pending")
PROOFS = (*CLEAN, "repaired", "drift")
COUNTS = ("compared", "missing", "mismatched", "orphaned", "pending", "repaired")
SILENT_SECONDS = 15.0  # an audit that goes on says so


def is_clean(audit: Audit) -> bool:
    """Return whether the audit ended, found no drift and had nothing to repair."""
    return audit.verdict in CLEAN


def proves(audit: Audit) -> bool:
    """Return whether the audit came to a result."""
    return audit.verdict in PROOFS


def left(audit: Audit) -> int:
    """Return how many pairs differ after the audit, as far as it knows."""
    found = (audit.missing or 0) + (audit.mismatched or 0) + (audit.orphaned or 0)
    return max(found - (audit.repaired or 0), 0)


def audit_of(line: LogLine, at: float) -> Audit:
    failed = line["status"] != "finished"
    return Audit(
        run_id=line["run_id"],
        at=at,
        verdict=None if failed or line["verdict"] is None else cut(line["verdict"], LONGEST_ID),
        requested_by=cut(line["requested_by"], LONGEST_ID),
        project_id=None if line["project_id"] is None else cut(line["project_id"], LONGEST_ID),
        repair=line["repair"],
        **{name: None if failed else line[name] for name in COUNTS},
        unlisted=line["unlisted"],
        duration_seconds=max(line["duration_ms"], 0) / 1000,
        error=None if line["error"] is None else cut(line["error"], LONGEST_TEXT),
    )  # fmt: skip


class Audits:
    """Audits by time, thinned evenly when there are many; those that were not clean are kept."""

    def __init__(self) -> None:
        self.ended: list[Audit] = []
        self._under_way: dict[int, float] = {}  # of everything, by run: when it was heard of last

    def started(self, line: LogLine, at: float) -> None:
        if line["project_id"] is None:
            self._under_way[line["run_id"]] = at
            if len(self._under_way) > MOST_UNDER_WAY:
                del self._under_way[next(iter(self._under_way))]

    def progress(self, line: LogLine, at: float) -> None:
        if line["run_id"] in self._under_way:
            self._under_way[line["run_id"]] = at

    def is_under_way(self, now: float) -> bool:
        """Return whether an audit of everything was heard of lately that has not ended."""
        return any(now - at <= SILENT_SECONDS for at in self._under_way.values())

    def finished(self, line: LogLine, at: float) -> None:
        self._under_way.pop(line["run_id"], None)
        insort(self.ended, audit_of(line, at), key=lambda audit: (audit.at, audit.run_id))
        if len(self.ended) >= 2 * MOST_AUDITS + 2 * MOST_UNCLEAN_AUDITS:
            self._thin()

    def _thin(self) -> None:
        """Keep one clean audit for each piece of the time, the first after one that was not, and the last."""
        unclean = [place for place, audit in enumerate(self.ended) if not is_clean(audit)]
        kept = set(unclean[-MOST_UNCLEAN_AUDITS:])
        kept |= {place + 1 for place in kept} | {len(self.ended) - 1}
        begin, end = self.ended[0].at, self.ended[-1].at
        pieces = {
            int((audit.at - begin) / (end - begin + 1) * MOST_AUDITS): place
            for place, audit in enumerate(self.ended)
            if is_clean(audit)
        }
        kept |= set(pieces.values())
        self.ended = [audit for place, audit in enumerate(self.ended) if place in kept]

    def of_everything(self) -> list[Audit]:
        return [audit for audit in self.ended if audit.project_id is None]


def _side(written: dict[str, Any] | None) -> dict[str, str | None] | None:
    if written is None:
        return None
    return {
        cut(name, LONGEST_ID): None if value is None else cut(value, LONGEST_TEXT)
        for name, value in list(written.items())[:MOST_COLUMNS]
    }


class Findings:
    """The newest findings, and how many there were in all."""

    def __init__(self) -> None:
        self._found: OrderedDict[tuple[int, str], Finding] = OrderedDict()
        self.total = 0

    def found(self, line: LogLine, at: float) -> None:
        differs = line["differs"]
        if not all(isinstance(name, str) for name in differs):
            raise BrokenLineError
        finding = Finding(
            run_id=line["run_id"],
            at=at,
            collection_id=cut(line["collection_id"], LONGEST_ID),
            project_id=cut(line["project_id"], LONGEST_ID),
            kind=cut(line["kind"], LONGEST_ID),
            differs=[cut(name, LONGEST_ID) for name in differs[:MOST_COLUMNS]],
            legacy=_side(line["legacy"]),
            before=_side(line["target"]),
        )
        self.total += 1
        self._found[finding.run_id, finding.collection_id] = finding
        if len(self._found) > MOST_FINDINGS + MOST_FINDINGS // 5:
            newest = sorted(self._found.items(), key=lambda item: item[1].at)[-MOST_FINDINGS:]
            self._found = OrderedDict(newest)

    def repaired(self, line: LogLine, at: float) -> None:
        """Take `audit_finding_repaired`, which the same process writes after the finding."""
        finding = self._found.get((line["run_id"], cut(line["collection_id"], LONGEST_ID)))
        if finding is not None:
            finding.after = _side(line["target"])
            finding.outcome = cut(line["outcome"], LONGEST_ID)
            finding.repaired_at = at

    def left_by(self, run_id: int) -> frozenset[str]:
        """Return the collections that a run found to differ, and that differ still."""
        return frozenset(
            finding.collection_id
            for (of_run, _), finding in self._found.items()
            if of_run == run_id and finding.outcome != "repaired"
        )

    def shown(self, audits: list[Audit]) -> list[Finding]:
        """Return the newest findings, the newest first; `audits` of everything show which agree since."""
        clean = [audit.at for audit in audits if is_clean(audit)]
        for finding in self._found.values():
            finding.agreed_at = next((at for at in clean if at > finding.at), None)
        newest = sorted(self._found.values(), key=lambda finding: (finding.at, finding.collection_id))
        return newest[-MOST_FINDINGS:][::-1]
