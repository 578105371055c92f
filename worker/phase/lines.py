"""The phase as a person reads it, line by line."""

from collections.abc import Iterator, Sequence

from rich.text import Text

from shared.phase.gates import Gate
from shared.phase.phases import COMPARED, TITLES, Phase
from shared.process.printable import printable
from shared.status.turns import PastTurn
from shared.verdict.facts import Cutover, Losses, Shadow
from shared.verdict.words import clock, count, span
from worker.command_line.columns import aligned
from worker.command_line.console import LONGEST_LINE, cell
from worker.command_line.verdict import tone

READ_FROM = {True: "Lists are read from project_collections.", False: "Lists are read from collections."}
LOSSES = {
    "further_links": ("further link", "further links"),
    "tags": ("row with tags", "rows with tags"),
    "mappings": ("row with mappings", "rows with mappings"),
    "contexts": ("context of its own", "contexts of their own"),
    "without_home": ("collection without a home", "collections without a home"),
}
MOST_TURNS = 5


def lines(
    cutover: Cutover, gates: Sequence[Gate], steps: Sequence[str], turns: Sequence[PastTurn], now: float
) -> Iterator[Text]:
    yield from _head(cutover, now)
    if cutover.phase.following is not None:
        yield Text("")
        yield _line(f"To {numbered(cutover.phase.following)}:")
        yield from gate_lines(gates)
    yield Text("")
    if steps:
        yield _line("Next:")
    for step in steps:
        yield _line(f"  {step}")
    if not steps:
        yield _line("Nothing is left to do: this is the last phase that this system carries out.")
    if cutover.phase in COMPARED:
        yield Text("")
        yield from compared_lines(cutover.shadow, now)
    yield Text("")
    yield _line(lost(cutover.losses, now))
    if turns:
        yield Text("")
        yield _line("Turns:")
    for turn in turns[:MOST_TURNS]:
        yield _line(f"  {said_of(turn)}")


def numbered(phase: Phase) -> str:
    return f"{phase.number}. {TITLES[phase]}"


def _head(cutover: Cutover, now: float) -> Iterator[Text]:
    since = f"since {clock(cutover.since, now)}, by {cutover.actor}"
    bad = cutover.fell_back or (cutover.phase is Phase.READS_MOVED and cutover.shadow.mismatched > 0)
    yield _line(f"{numbered(cutover.phase)}, {since}.", f"bold {tone('drift' if bad else 'ok')}")
    said = READ_FROM[cutover.phase is Phase.READS_MOVED]
    if cutover.phase is Phase.READS_MOVED:
        falls = (
            "They fall back by themselves" if cutover.falls_back else "They do not fall back by themselves"
        )
        said += f" {falls} when a comparison finds a mismatch."
    yield _line(said)
    if cutover.fell_back:
        yield _line(f"They fell back: {cutover.reason or 'a comparison found a mismatch'}", tone("drift"))


def gate_lines(gates: Sequence[Gate]) -> list[Text]:
    """Return a table of the gates: whether each is met, what was seen and how old that is, what must be."""
    rows = [
        [
            cell("met" if gate.is_met else "not met", tone("ok" if gate.is_met else "open")),
            cell(gate.title),
            cell(seen_of(gate)),
            cell(gate.limit),
        ]
        for gate in gates
    ]
    return aligned(["", "gate", "seen", "must be"], rows)


def seen_of(gate: Gate) -> str:
    age = "" if gate.age_seconds is None else f", {span(gate.age_seconds)} ago"
    return f"{gate.value}{age}"


def compared_lines(seen: Shadow, now: float) -> Iterator[Text]:
    """Say what was compared since the phase began, what it took on either side, and what was found."""
    if seen.last_at is None:
        yield _line("Compared: no list yet.")
    else:
        yield _line(
            f"Compared: {count(seen.compared, 'list', 'lists')}, the last {span(now - seen.last_at)} ago."
            f" {seen.matched:,} agree; {seen.mismatched:,} differ, which neither event nor letter explains;"
            f" {seen.pending:,} differ while an event waits, {seen.lettered:,} for an open letter;"
            f" {seen.dropped:,} were dropped, {seen.failed:,} failed."
        )
    if seen.compared:
        legacy, target = (1000 * took / seen.compared for took in (seen.legacy_seconds, seen.target_seconds))
        yield _line(
            f"A list took {legacy:.2f} ms from collections, {target:.2f} ms from project_collections."
        )
    for found in seen.findings:
        at = clock(found.found_at, now)
        said = f"{found.kind}: collection {found.collection_id} of project {found.project_id}, found at {at}"
        yield _line(f"  {said}", tone(found.kind))


def lost(losses: Losses | None, now: float) -> str:
    """Say what reads lose by going back; nothing is deleted by it."""
    if losses is None:
        return "What only project_collections holds, and going back hides from reads: not counted yet."
    kinds = ", ".join(count(getattr(losses, kind), *words) for kind, words in LOSSES.items())
    ago = span(now - losses.counted_at)
    return f"Only project_collections holds, and going back hides from reads: {kinds}. Counted {ago} ago."


def said_of(turn: PastTurn) -> str:
    how = {"advance": "advanced", "back": "turned back", "fall_back": "fell back"}[turn.kind]
    said = (
        f"{turn.epoch}  {turn.turned_at.astimezone():%Y-%m-%d %H:%M:%S}  {how} to"
        f" {TITLES[Phase(turn.to_phase)]}, by {turn.actor}"
    )
    if turn.forced:
        said += f", forced past: {', '.join(turn.unmet)}"
    return f"{said}: {turn.reason}" if turn.reason else said


def _line(said: str, style: str = "") -> Text:
    return Text(printable(said, LONGEST_LINE), style)
