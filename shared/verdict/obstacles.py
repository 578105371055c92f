"""What stands in the way of all else: the schema, the sequences, the server, a session that holds a lock."""

from shared.revision import REVISION
from shared.verdict import commands
from shared.verdict.answer import Answer
from shared.verdict.facts import LOCKED, Facts
from shared.verdict.words import span, who

STUCK_SECONDS = 2.0  # so long our own statements wait
API = "collection-sync api"  # whose requests may wait for a row of the monolith's: that holds up no event


def not_migrated(facts: Facts) -> Answer | None:
    revision = facts.server.revision
    if "schema" in facts.unknown or (revision is not None and revision >= REVISION):
        return None
    found = "was never migrated" if revision is None else f"is at revision {revision}"
    sentence = f"Not migrated: the database {found}; this release needs revision {REVISION}."
    return Answer("not_migrated", sentence, [commands.UPGRADE])


def unfit(facts: Facts) -> Answer | None:
    if not facts.sequence_faults:
        return None
    sentence = (
        f"Unfit: {'; '.join(facts.sequence_faults)}. Nothing is written or applied until that is fixed."
    )
    return Answer("unfit", sentence, [commands.REPAIR_SEQUENCES])


def read_only(facts: Facts) -> Answer | None:
    if facts.server.is_standby or not facts.server.is_read_only:
        return None
    sentence = (
        "Read-only: the setting default_transaction_read_only is on."
        " Nothing is written or applied until it is off."
    )
    return Answer("read_only", sentence, [commands.PREFLIGHT, commands.WATCH])


def stuck(facts: Facts) -> Answer | None:
    """Speak where another's session keeps events from being applied."""
    is_dark = LOCKED in facts.unknown.values()
    for holder in facts.holders or ():
        is_felt = holder.waiting not in {None, API} or facts.waiting > 0 or is_dark
        longest = max(holder.held_seconds or 0.0, holder.waited_seconds or 0.0, facts.oldest_seconds)
        if not is_felt or longest < STUCK_SECONDS:
            continue
        held = "" if holder.held_seconds is None else f" for {span(holder.held_seconds)}"
        if not held and holder.waited_seconds is not None:
            held = f" for at least {span(holder.waited_seconds)}"
        sentence = f"Stuck: held by {who(holder)}{held}. It goes on when that transaction ends."
        return Answer("stuck", sentence, [commands.WATCH], f"Stuck: held by {who(holder)}{held}")
    return None


def unknown(facts: Facts) -> Answer | None:
    """Speak where too little is known to say anything else."""
    needed = ("history", "lanes", "letters", "workers")
    missing = [name for name in needed if getattr(facts, name) is None]
    if not missing:
        return None
    reasons = "; ".join(f"{name}: {facts.unknown.get(name, 'not read')}" for name in missing)
    return Answer("unknown", f"Not known ({reasons}).", [commands.WATCH])
