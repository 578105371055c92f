"""What the audits prove: whether both tables agree, since when that is known, and what speaks against it."""

from shared.verdict import commands
from shared.verdict.answer import Answer
from shared.verdict.facts import Audit, Facts
from shared.verdict.proof_age import LATE_AFTER_SECONDS, outdated_after
from shared.verdict.validity import is_recent_enough, valid_proof
from shared.verdict.words import clock, clock_to_the_second, count, span


def drift(facts: Facts) -> Answer | None:
    """Speak where pairs differ although no event for them waits, and no dead letter is why."""
    history, now = facts.known_history, facts.server.now
    repair = [commands.REPAIR, commands.AUDIT]
    proof = valid_proof(history)
    if proof is not None and proof.has_drift:
        if _is_for_letters(facts, proof):
            return None
        left = max(proof.found - proof.repaired, 1)
        since = clock(proof.ended_at, now)
        sentence = f"Drift: {count(left, 'pair differs', 'pairs differ')}, by the audit of {since}."
        return Answer("drift", sentence, repair, f"Drift: {left:,}")
    if history.drifted:
        left = sum(max(audit.found - audit.repaired, 1) for audit in history.drifted)
        projects = count(len(history.drifted), "project", "projects")
        sentence = f"Drift: {count(left, 'pair differs', 'pairs differ')} in {projects} audited alone."
        return Answer("drift", sentence, repair, f"Drift: {left:,}")
    return None


def _is_for_letters(facts: Facts, proof: Audit) -> bool:
    """Return whether all that differs are collections whose event died."""
    history = facts.known_history
    letters = {letter.collection_id for letter in facts.letters or ()}
    is_listed_whole = proof == history.whole and len(history.findings) == proof.found - proof.repaired
    return is_listed_whole and bool(history.findings) and history.findings <= letters


def incomplete(facts: Facts) -> Answer | None:
    """Speak where the last audit came to no end, or could not see."""
    whole = facts.known_history.whole
    if whole is None or whole.proves or not is_recent_enough(whole, facts.known_history):
        return None
    why = (whole.error or "it came to no end").rstrip(".")
    sentence = f"Not proved: the last audit proves nothing ({why})."
    return Answer("incomplete", sentence, _audit_or_wait(facts))


def repaired(facts: Facts) -> Answer | None:
    """Speak where the last audit repaired something: only the next one can be clean."""
    proof = facts.known_history.proof
    if proof is None or proof.verdict != "repaired" or proof != facts.known_history.whole:
        return None
    pairs = count(proof.repaired, "pair was", "pairs were")
    sentence = (
        f"Repaired: {pairs} repaired and compared again. Clean is only what the next audit finds clean."
    )
    return Answer("repaired", sentence, _audit_or_wait(facts))


def not_audited(facts: Facts) -> Answer:
    proof = facts.known_history.proof
    sentence = "Not audited: no audit has compared all pairs."
    if proof is not None:
        at = clock(proof.ended_at, facts.server.now)
        sentence = f"Not audited: the last audit of all pairs, of {at}, is older than what was done since."
    return Answer("not_audited", sentence, _audit_or_wait(facts))


def outdated(facts: Facts, proof: Audit) -> Answer | None:
    bound = outdated_after(proof.ended_at - proof.started_at)
    if facts.server.now - proof.ended_at <= bound:
        return None
    sentence = f"Audit outdated: the last of all pairs ended at {clock(proof.ended_at, facts.server.now)}."
    return Answer("outdated", sentence, _audit_or_wait(facts))


def dead_letters(facts: Facts, _proof: Audit) -> Answer | None:
    letters = facts.letters or []
    open_letters = len(letters) + facts.more_letters
    if not open_letters:
        return None
    number = "one dead letter" if open_letters == 1 else f"{open_letters:,} dead letters"
    if not letters:
        sentence = f"In sync but for {number}, of which no more is known here."
        return Answer("dead_letters", sentence, [f"{commands.LETTERS} list", commands.AUDIT])
    first = letters[0]
    sentence = (
        f"In sync but for {number}: open is {first.id}{f' ({first.sqlstate})' if first.sqlstate else ''}"
    )
    if first.has_home is False:
        steps = [f"{commands.LETTERS} discard {first.id}"]
        sentence += ", and its collection is gone."
    elif first.is_replay:
        steps = [f"{commands.LETTERS} show {first.id}", f"{commands.LETTERS} replay --wait {first.id}"]
        sentence += ", a replay that died again. Fix first what its reason names."
    else:
        steps = [f"{commands.LETTERS} show {first.id}", f"{commands.LETTERS} replay --wait {first.id}"]
        sentence += ". Fix what its reason names, then replay."
    return Answer("dead_letters", sentence, [*steps, commands.AUDIT])


def late(facts: Facts, _proof: Audit) -> Answer | None:
    oldest = (facts.lanes or {})["live"].oldest_seconds
    if oldest is None or oldest <= LATE_AFTER_SECONDS:
        return None
    sentence = f"Late: a user's write has waited for {span(oldest)}, although a worker is alive."
    return Answer("late", sentence, [commands.PREFLIGHT, commands.WATCH])


def in_sync(facts: Facts, proof: Audit) -> Answer:
    at = f"audited at {clock_to_the_second(proof.ended_at, facts.server.now)}"
    if not proof.pending:
        return Answer("in_sync", f"In sync: all {proof.compared:,} pairs agree, {at}.", [commands.PHASE])
    way = count(proof.pending, "was", "were")
    sentence = f"In sync: of {proof.compared:,} pairs {way} on the way and none had drifted, {at}."
    return Answer("in_sync", sentence, [commands.PHASE])


def _audit_or_wait(facts: Facts) -> list[str]:
    return [commands.WATCH if facts.known_history.is_auditing else commands.AUDIT]
