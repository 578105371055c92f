"""What to type next on the way to the last phase, by the gates."""

from collections.abc import Sequence

from shared.phase.gates import Gate
from shared.verdict import commands
from shared.verdict.facts import Cutover


def next_steps(cutover: Cutover, gates: Sequence[Gate]) -> list[str]:
    """Return the commands that go on; in the last phase none, unless a comparison found a mismatch."""
    if cutover.phase.following is None:
        return [commands.REPAIR, commands.AUDIT, commands.BACK] if cutover.shadow.mismatched else []
    unmet = [gate for gate in gates if not gate.is_met]
    if not unmet:
        return [commands.ADVANCE]
    return list(dict.fromkeys(step for gate in unmet for step in gate.next_steps))


def is_open(cutover: Cutover, gates: Sequence[Gate]) -> bool:
    """Return whether the way to the next phase is open; in the last one, whether all is well there."""
    if cutover.phase.following is None:
        return not cutover.shadow.mismatched
    return all(gate.is_met for gate in gates)
