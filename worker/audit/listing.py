"""Findings as a person reads them, like a diff, and as a machine does."""

import shlex
from collections.abc import Iterator, Mapping
from itertools import takewhile

from rich.text import Text

from shared.audit_runs import AuditRun
from shared.pair import COLUMNS
from shared.process.printable import printable
from worker.audit.findings import MOST_LISTED, MOST_LISTED_BY_SCHEDULE, Finding
from worker.audit.log import LONGEST_TEXT
from worker.command_line.console import LONGEST_CELL, cell, stdout
from worker.command_line.verdict import BAD, GOOD, tone

LONGEST_SHOWN = 80
SHOWN_BEFORE = 20  # characters of what both texts begin with, where they are long

Side = Mapping[str, object] | None


def show(run: AuditRun, findings: list[Finding], most: int) -> None:
    """Print the findings like a diff, and how to see the others. No line is wrapped: ids are to be copied.

    most: how many were asked for.
    """
    for line in diff(findings):
        stdout.print(line, soft_wrap=True)
    more = others(run, findings, most)
    if more is not None:
        stdout.say("", more)


def diff(findings: list[Finding]) -> Iterator[Text]:
    """Yield lines: of each finding what it is, what the target holds, and what it should hold."""
    for finding in findings:
        yield Text()
        yield _heading(finding)
        if finding.writer:
            yield cell(f"written past the outbox by {finding.writer}")
        for name in _telling(finding):
            yield from _both_sides(finding, name)


def _heading(finding: Finding) -> Text:
    outcome = f", {finding.outcome.replace('_', ' ')}" if finding.outcome else ""
    if finding.dead_letter is not None:
        outcome += f", its event died: dead letter {finding.dead_letter}"
    kind = cell(f"{finding.kind}{outcome}", "green" if finding.outcome == "repaired" else tone(finding.kind))
    return Text("  ").join([cell(finding.collection_id, "bold"), kind, cell(_where(finding))])


def _where(finding: Finding) -> str:
    if finding.target is None:
        return f"no row in {finding.project_id}"
    if finding.legacy is None:
        return f"a row in {finding.project_id}"
    return ", ".join(finding.differs)


def _telling(finding: Finding) -> list[str]:
    """Return the columns to show; where a whole row is missing or too much, its first says enough."""
    whole = finding.legacy is None or finding.target is None
    return list(COLUMNS[:1]) if whole else finding.differs


def _both_sides(finding: Finding, name: str) -> Iterator[Text]:
    label = f"{name}: " if finding.target and finding.legacy and len(finding.differs) > 1 else ""
    start = _start(finding.target, finding.legacy, name)
    for sign, side, style in (("-", finding.target, BAD), ("+", finding.legacy, GOOD)):
        if side is not None:
            yield Text(printable(f"{sign} {label}{_literal(side.get(name), start)}", LONGEST_CELL), style)


def _start(target: Side, legacy: Side, name: str) -> int:
    """Return from which character on to show two long texts, so that where they differ is seen."""
    texts = [str(side.get(name)) for side in (target, legacy) if side is not None]
    if len(texts) == 1 or max(map(len, texts)) <= LONGEST_SHOWN:
        return 0
    alike = sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], zip(*texts, strict=False)))
    return max(alike - SHOWN_BEFORE, 0)


def _literal(value: object, start: int) -> str:
    if value is None:
        return "NULL"
    text = str(value)
    shown = repr(text[start : start + LONGEST_SHOWN])
    return f"{'…' if start else ''}{shown}{'…' if len(text) > start + LONGEST_SHOWN else ''}"


def others(run: AuditRun, findings: list[Finding], most: int) -> str | None:
    """Return how to see those that `findings` leave out; where it got all it asked for, others may follow."""
    if findings and len(findings) == most:
        last = shlex.quote(findings[-1].collection_id)
        return f"The next: python -m worker.audit findings {run.id} --after {last}"
    recorded = MOST_LISTED_BY_SCHEDULE if run.requested_by == "schedule" else MOST_LISTED
    if findings and not run.repair and run.found > recorded:
        return f"Of the {run.found:,} that differ, the audit wrote down {recorded:,}."
    return None


def as_objects(findings: list[Finding]) -> list[dict[str, object]]:
    """Return findings for a machine: their columns as texts, null where there is no row or value."""
    return [
        {
            "collection_id": finding.collection_id,
            "project_id": finding.project_id,
            "kind": finding.kind,
            "outcome": finding.outcome,
            "dead_letter": finding.dead_letter,
            "writer": finding.writer or None,
            "differs": finding.differs,
            "legacy": _texts(finding.legacy),
            "target": _texts(finding.target),
        }
        for finding in findings
    ]


def _texts(side: Side) -> dict[str, str | None] | None:
    if side is None:
        return None
    return {name: None if value is None else _bounded(str(value)) for name, value in side.items()}


def _bounded(text: str) -> str:
    return text if len(text) <= LONGEST_TEXT else f"{text[: LONGEST_TEXT - 1]}…"
