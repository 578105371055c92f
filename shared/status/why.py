"""Why one collection is as it is, in a sentence. Pure functions."""

from shared.status.collection import Collection
from shared.verdict import commands
from shared.verdict.answer import Answer


def why(found: Collection) -> Answer:
    """Return the verdict on one collection: whether its home row is as it should be, and if not, why."""
    if found.legacy is None or found.agrees is None:
        return Answer("unknown", f"Not known: {_reasons(found)}.", [commands.WATCH])
    if not found.legacy:
        return _without_legacy(found)
    is_active = found.legacy["is_active"] == "true"
    if found.agrees:
        what = (
            "its home row holds exactly what collections holds"
            if is_active
            else "it is deleted in both tables"
        )
        way = f", and event {found.pending[0]['id']} waits" if found.pending else ""
        return Answer("in_sync", f"In sync: {what}{way}.")
    return _differing(found, _difference(found, is_active=is_active))


def _reasons(found: Collection) -> str:
    said = {why for name, why in found.unknown.items() if name in {"legacy", "agrees"}}
    return "; ".join(sorted(said)) or "not read"


def _without_legacy(found: Collection) -> Answer:
    if found.target:
        rows = "rows of it stand in project_collections all the same: delete them by hand"
        return Answer("orphaned", f"No such collection, yet {rows}.")
    if found.events or found.open_letters:
        return Answer(
            "no_such_collection", "No such collection: it is gone, and what waits of it is obsolete."
        )
    return Answer("no_such_collection", "No such collection: neither table has it.")


def _difference(found: Collection, *, is_active: bool) -> str:
    if not is_active:
        return "it is deleted, and its home row is there still"
    homes = [row for row in found.target or () if row["project_id"] == (found.legacy or {})["project_id"]]
    return "its home row differs" if homes else "its home row is missing"


def _differing(found: Collection, difference: str) -> Answer:
    if found.events is None or found.letters is None:
        return Answer("unknown", f"Not known why {difference}: {'; '.join(found.unknown.values())}.")
    if found.pending:
        event = found.pending[0]
        sentence = f"On its way: {difference}, and event {event['id']} of {event['created_at']} waits."
        return Answer("pending", sentence, [commands.WATCH])
    if found.open_letters:
        letter = found.open_letters[0]
        number = letter["id"]
        sentence = f"Dead: {difference}, since event {number} could not be applied ({letter['error']})."
        steps = [f"{commands.LETTERS} show {number}", f"{commands.LETTERS} replay --wait {number}"]
        return Answer("dead", sentence, steps)
    if not found.applied and not found.is_backfilled:
        sentence = f"Not backfilled yet: {difference}, and no event of it was ever applied."
        return Answer("not_backfilled", sentence, [commands.BACKFILL])
    sentence = (
        f"Drift: {difference} and no event waits: another writer changed one of the tables without one."
    )
    return Answer("drift", sentence, [commands.REPAIR])
