"""Whether an audit says anything about now: not where something may have made it untrue since."""

from shared.verdict.facts import Audit, History


def is_recent_enough(audit: Audit, history: History) -> bool:
    """Return whether it began after the last backfill, rollback and repair of others had ended."""
    is_its_own_repair = audit.repaired > 0 and history.mended_at == audit.ended_at
    ends = [
        None if is_its_own_repair else history.mended_at,
        history.backfill.finished_at if history.backfill else None,
        history.rollback.ended_at if history.rollback else None,
    ]
    return all(audit.started_at >= end for end in ends if end is not None)


def valid_proof(history: History) -> Audit | None:
    """Return the last audit that proved anything about everything, where it says something about now."""
    proof = history.proof
    return proof if proof is not None and is_recent_enough(proof, history) else None
