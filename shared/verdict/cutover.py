"""What the cutover adds to the verdict: reads that fell back, and moved reads that differ."""

from shared.phase.phases import TITLES, Phase
from shared.verdict import commands
from shared.verdict.answer import Answer
from shared.verdict.facts import Audit, Facts
from shared.verdict.words import clock, count

GO_ON = (commands.REPAIR, commands.AUDIT, commands.PHASE)


def fell_back(facts: Facts, _proof: Audit) -> Answer | None:
    """Speak from when reads went back by themselves until an operator turns the phase."""
    cutover = facts.cutover
    if cutover is None or not cutover.fell_back:
        return None
    at = clock(cutover.since, facts.server.now)
    why = (cutover.reason or "a comparison of lists found a mismatch").rstrip(".")
    sentence = f"Reads fell back to collections at {at}: {why}."
    return Answer("fell_back", sentence, GO_ON, f"Reads fell back at {at}")


def reads_differ(facts: Facts, _proof: Audit) -> Answer | None:
    """Speak where moved reads were found to differ, and stay where they are, as the operator wanted."""
    cutover = facts.cutover
    if cutover is None or cutover.phase is not Phase.READS_MOVED or not cutover.shadow.mismatched:
        return None
    lists = count(cutover.shadow.mismatched, "list differs", "lists differ")
    sentence = (
        f"Reads differ: {lists} between both tables since they were moved, and no event or letter is why."
    )
    return Answer("reads_differ", sentence, [*GO_ON[:2], commands.BACK], f"Reads differ: {lists}")


def phase_line(facts: Facts) -> str | None:
    """Return the phase as a figure; None where it is not known."""
    cutover = facts.cutover
    if cutover is None:
        return None
    at = clock(cutover.since, facts.server.now)
    said = f"{cutover.phase.number}. {TITLES[cutover.phase]}, since {at}, by {cutover.actor}"
    if cutover.shadow.last_at is not None:
        seen = cutover.shadow
        lists, found = count(seen.compared, "list", "lists"), count(seen.mismatched, "mismatch", "mismatches")
        said += f"; {lists} compared, {found}"
    return said
