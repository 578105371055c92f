"""The one line that a machine reads: the answer, and the figures; null where nothing is known."""

from dataclasses import asdict
from typing import Any

from shared.revision import REVISION
from shared.verdict.answer import Answer
from shared.verdict.facts import Facts


def as_json(said: Answer, facts: Facts | None) -> dict[str, Any]:
    """Return the line: moments are seconds since 1970 by the database's clock, durations seconds."""
    answer = {
        "verdict": said.word,
        "title": said.title,
        "sentence": said.sentence,
        "next_steps": list(said.next_steps),
        "may_go_on": said.is_well,
    }
    return answer if facts is None else answer | _figures(facts)


def _figures(facts: Facts) -> dict[str, Any]:
    history = facts.history
    backfill, audit = (history.backfill, history.whole) if history else (None, None)
    return {
        **asdict(facts.server),
        "needed_revision": REVISION,
        "sequence_faults": facts.sequence_faults,
        "workers": None
        if facts.workers is None
        else [asdict(one) | {"is_alive": one in facts.alive} for one in facts.workers],
        "lanes": None if facts.lanes is None else {name: asdict(lane) for name, lane in facts.lanes.items()},
        "later_versions": facts.later_versions,
        "holders": None if facts.holders is None else [asdict(holder) for holder in facts.holders],
        "backfill": None if backfill is None else asdict(backfill),
        "audit": None if audit is None else asdict(audit),
        "rolled_back_at": history.rollback.ended_at if history and history.rollback else None,
        "captured": None if facts.captured is None else asdict(facts.captured),
        "cutover": None if facts.cutover is None else asdict(facts.cutover),
        "dead_letters": None if facts.letters is None else len(facts.letters),
        "unknown": dict(facts.unknown),
    }
