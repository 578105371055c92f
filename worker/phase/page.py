"""A turn as one page of HTML: no script, nothing that is loaded, every text escaped."""

import base64
import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from html import escape
from importlib.resources import files
from typing import Any

from sqlalchemy import Row

from shared.page_headers import written
from shared.phase.phases import TITLES, Phase
from shared.process.printable import printable
from shared.verdict.facts import Shadow
from shared.verdict.words import count, span
from worker.phase.lines import LOSSES, READ_FROM, numbered

HOW = {"advance": "Advanced to", "back": "Turned back to", "fall_back": "Fell back to"}
NUMBERS = frozenset({"Compared", "Differ", "On the way", "Repaired", "Rows"})


@dataclass(frozen=True, slots=True)
class Report:
    """A turn. gates, losses: as recorded with it. shadow: of the phase that it ended. left: the next turn."""

    epoch: int
    turned_at: datetime
    from_phase: Phase
    to_phase: Phase
    kind: str
    actor: str
    reason: str | None
    forced: bool
    gates: Sequence[Mapping[str, Any]]
    losses: Mapping[str, float] | None
    database: str
    now: datetime
    shadow: Shadow
    audits: Sequence[Row[Any]]
    left: Row[Any] | None


def page(report: Report) -> str:
    style = (files(__package__) / "page.css").read_text(encoding="utf-8")
    title = f"Turn {report.epoch}: {HOW[report.kind]} {numbered(report.to_phase)}"
    return "\n".join(
        (
            "<!doctype html>",
            '<html lang="en">',
            "<head>",
            '<meta charset="utf-8">',
            '<meta name="viewport" content="width=device-width, initial-scale=1">',
            f'<meta http-equiv="Content-Security-Policy" content="{_policy(style)}">',
            f"<title>{_text(title)}</title>",
            f"<style>{style}</style>",
            "</head>",
            "<body>",
            "<main>",
            f"<h1>{_text(title)}</h1>",
            *_turn(report),
            *_gates(report),
            *_comparisons(report.shadow),
            *_audits(report),
            *_losses(report),
            "<h2>Signed</h2>",
            '<div class="signature"><p>Name</p><p>Date</p></div>',
            "</main>",
            f"<footer>Written {_moment(report.now)}. Who turned it is the name that was given.</footer>",
            "</body>",
            "</html>",
            "",
        )
    )


def _policy(style: str) -> str:
    digest = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
    return written({"default-src": "'none'", "style-src": f"'sha256-{digest}'", "base-uri": "'none'"})


def _turn(report: Report) -> Iterator[str]:
    unmet = sum(not gate["is_met"] for gate in report.gates)
    if report.forced:
        yield f'<p class="bad">Forced past {count(unmet, "gate that was", "gates that were")} not met.</p>'
    if report.kind == "fall_back":
        yield '<p class="bad">Nobody ordered it: a comparison found a mismatch.</p>'
    yield f"<p>{READ_FROM[report.to_phase is Phase.READS_MOVED]}</p>"
    left = report.left
    rows = {
        "Database": report.database,
        "From": numbered(report.from_phase),
        "To": numbered(report.to_phase),
        "When": _moment(report.turned_at),
        "Who": report.actor,
        "Why": report.reason or "no reason was given",
        "Until": "it is so still" if left is None else _left(left),
    }
    yield "<dl>"
    yield from (f"<dt>{_text(name)}</dt><dd>{_text(value)}</dd>" for name, value in rows.items())
    yield "</dl>"


def _left(left: Row[Any]) -> str:
    to_phase = TITLES[Phase(left.to_phase)]
    return f"{_moment(left.turned_at)}: {HOW[left.kind].lower()} {to_phase}, by {left.actor}"


def _gates(report: Report) -> Iterator[str]:
    yield "<h2>The gates, as they were in the transaction of the turn</h2>"
    if not report.gates:
        yield '<p class="soft">None: to go back asks for nothing.</p>'
        return
    rows = [
        (
            gate["title"],
            gate["value"],
            "at the turn" if gate["age_seconds"] is None else span(gate["age_seconds"]),
            gate["limit"],
            "met" if gate["is_met"] else "not met",
        )
        for gate in report.gates
    ]
    yield from _table(("Gate", "Seen", "Age", "Must be", "Result"), rows)


def _comparisons(seen: Shadow) -> Iterator[str]:
    yield "<h2>Lists compared from both sides in the phase before</h2>"
    if not seen.compared:
        yield '<p class="soft">None.</p>'
        return
    legacy, target = (1000 * took / seen.compared for took in (seen.legacy_seconds, seen.target_seconds))
    yield (
        f"<p>{count(seen.compared, 'list', 'lists')}: {seen.matched:,} agree, {seen.pending:,} differ while"
        f" an event waits, {seen.lettered:,} for an open dead letter,"
        f' <span class="{"bad" if seen.mismatched else "good"}">{seen.mismatched:,} unexplained</span>.'
        f" {seen.dropped:,} were dropped and {seen.failed:,} failed. A list took {legacy:.2f} ms from"
        f" collections and {target:.2f} ms from project_collections.</p>"
    )


def _audits(report: Report) -> Iterator[str]:
    yield "<h2>The audits of all pairs around it</h2>"
    if not report.audits:
        yield '<p class="soft">None is recorded.</p>'
        return
    rows = [
        (
            str(audit.id),
            _moment(audit.finished_at)
            + ("" if audit.finished_at <= report.turned_at else ", after the turn"),
            (audit.verdict or audit.status).replace("_", " "),
            *(f"{number:,}" for number in (audit.compared, audit.found, audit.pending, audit.repaired)),
        )
        for audit in report.audits
    ]
    yield from _table(("Audit", "Ended", "Verdict", "Compared", "Differ", "On the way", "Repaired"), rows)


def _losses(report: Report) -> Iterator[str]:
    yield "<h2>What going back hides from reads</h2>"
    if report.losses is None:
        yield '<p class="soft">It was not counted by then.</p>'
        return
    counted = datetime.fromtimestamp(report.losses["counted_at"], UTC)
    at = _moment(counted)
    yield f"<p>Only project_collections holds it, and nothing of it is deleted. Counted {at}.</p>"
    rows = [(words[1].capitalize(), f"{report.losses[kind]:,.0f}") for kind, words in LOSSES.items()]
    yield from _table(("Kind", "Rows"), rows)


def _table(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> Iterator[str]:
    """Yield a table; each cell names its column, for a page too narrow for columns."""
    yield "<table><thead><tr>"
    yield from (f'<th scope="col"{_kind(head)}>{_text(head)}</th>' for head in heads)
    yield "</tr></thead><tbody>"
    for row in rows:
        cells = zip(heads, row, strict=True)
        said = "".join(f'<td data-of="{head}"{_kind(head, said)}>{_text(said)}</td>' for head, said in cells)
        yield f"<tr>{said}</tr>"
    yield "</tbody></table>"


def _kind(head: str, said: str = "") -> str:
    if head == "Result" and said:
        return f' class="{"good" if said == "met" else "bad"}"'
    return ' class="number"' if head in NUMBERS else ""


def _moment(at: datetime) -> str:
    return f"{at.astimezone(UTC):%Y-%m-%d %H:%M:%S} UTC"


def _text(said: str) -> str:
    return escape(printable(said))
