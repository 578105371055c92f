"""Where the migration stands: the first of the rules that has something to say decides.

The verdict follows the life of the migration. Missing rows are no drift before all were backfilled, nor while
they are: to repair them would be a second migration on top of the first. Nothing is in sync unless proved.
"""

from collections.abc import Callable

from shared.verdict import course, cutover, obstacles, proved
from shared.verdict.answer import Answer
from shared.verdict.facts import Audit, Facts
from shared.verdict.validity import valid_proof

RULES: tuple[Callable[[Facts], Answer | None], ...] = (
    obstacles.not_migrated,
    obstacles.unfit,
    obstacles.read_only,
    obstacles.stuck,
    obstacles.unknown,
    course.backfill,
    course.not_backfilled,
    course.stopped,
    course.later_versions,
    course.settling,
    proved.drift,
    proved.incomplete,
    proved.repaired,
)
RULES_OF_PROOF: tuple[Callable[[Facts, Audit], Answer | None], ...] = (
    proved.outdated,
    proved.dead_letters,
    proved.late,
    cutover.fell_back,
    cutover.reads_differ,
    proved.in_sync,
)


def answer_from(facts: Facts) -> Answer:
    for rule in RULES:
        if (said := rule(facts)) is not None:
            return said
    proof = valid_proof(facts.known_history)
    if proof is None:
        return proved.not_audited(facts)
    return next(said for rule in RULES_OF_PROOF if (said := rule(facts, proof)) is not None)
