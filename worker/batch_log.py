"""The log lines of a batch: one for each of its lanes, and one for each of its events."""

from collections import Counter

import structlog

from shared.events import Source
from worker.batch import Batch
from worker.claim import ClaimedEvent
from worker.outcomes import Outcome, Verdict

logger = structlog.get_logger(__name__)


def log_batch(batch: Batch, wake: str) -> None:
    """Write one line for the batch and one for each event, but none for what a backfill applied.

    What is postponed has one line for all.
    """
    counts = Counter(verdict.outcome for verdict in batch.verdicts.values())
    settled = [event for event in batch.events if batch.verdicts[event.id].is_final]
    lags = sorted(event.age_ms + batch.duration_seconds * 1000 for event in settled)
    logger.info(
        "batch_settled",
        wake=wake,
        claimed=len(batch.events),
        **{outcome.value: counts[outcome] for outcome in Outcome},
        lag_ms_p50=round(lags[len(lags) // 2], 3),
        lag_ms_max=round(lags[-1], 3),
        duration_ms=round(batch.duration_seconds * 1000, 3),
    )
    log_postponed(batch)
    for event in settled:
        verdict = batch.verdicts[event.id]
        if event.source != Source.BACKFILL or verdict.outcome is not Outcome.APPLIED:
            log_event(event, verdict, batch.duration_seconds)


def log_postponed(batch: Batch) -> None:
    """Say how many events could not be applied now, and why the first of them."""
    postponed = [event for event in batch.events if not batch.verdicts[event.id].is_final]
    if postponed:
        first, verdict = postponed[0], batch.verdicts[postponed[0].id]
        logger.warning(
            "events_postponed",
            events=len(postponed),
            first_event_id=first.id,
            collection_id=first.collection_id,
            sqlstate=verdict.sqlstate,
            error=verdict.error,
        )


def log_event(event: ClaimedEvent, verdict: Verdict, batch_seconds: float) -> None:
    """Write the line of one event; one that died is an error."""
    log = logger.error if verdict.outcome is Outcome.DEAD else logger.info
    reason = {} if verdict.error is None else {"sqlstate": verdict.sqlstate, "error": verdict.error}
    log(
        "event_settled",
        event_id=event.id,
        collection_id=event.collection_id,
        project_id=event.project_id,
        event_type=event.event_type,
        source=event.source,
        outcome=verdict.outcome,
        lag_ms=round(event.age_ms + batch_seconds * 1000, 3),
        **reason,
    )
