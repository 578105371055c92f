"""The log lines of a batch: one for each lane it took from, and one for each of its events.

`shared/logs/contract.py` states their fields.
"""

import math
from bisect import bisect_right
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence

import structlog

from shared.dead_letters import MOST_NAMED
from shared.events import Source
from shared.lanes import KNOWN_LANES, NAMES
from shared.logs.setup import log_many
from worker.relay.batch import Batch
from worker.relay.claim import ClaimedEvent
from worker.relay.outcomes import Outcome

logger = structlog.get_logger(__name__)

LANES = tuple(NAMES.values())
# Of the backfill's events that were applied, one in this many has a line: millions would say nothing.
SAMPLED_ONE_OF = 1_000
LAG_GROWTH = math.log(1.1)

Line = tuple[str, Mapping[str, object]]  # level, fields


def log_summary(batch: Batch, wake: str) -> None:
    """Write a line for each lane of the batch; what is postponed has one for all, as have letters closed."""
    for name in LANES:
        if events := [event for event in batch.events if KNOWN_LANES[event.lane] == name]:
            final = [event for event in batch.final if KNOWN_LANES[event.lane] == name]
            logger.info("batch_settled", wake=wake, lane=name, **summary(batch, events, final))
    log_postponed(batch)
    log_superseded(batch.superseded)


def log_events(lines: Sequence[Line]) -> None:
    log_many("event_settled", lines)


def summary(batch: Batch, events: Sequence[ClaimedEvent], final: Sequence[ClaimedEvent]) -> dict[str, object]:
    """Count what became of these events of the batch, and how late those were that are done with."""
    outcomes = Counter(batch.settlements[event.id].outcome for event in events)
    lags = sorted(batch.lag_ms(event) for event in final)
    return {
        "claimed": len(events),
        **{outcome.value: outcomes[outcome] for outcome in Outcome},
        "oldest_pending_ms": round(max(event.age_ms for event in events), 3),
        "lag_ms_p50": percentile(lags, 50),
        "lag_ms_p95": percentile(lags, 95),
        "lag_ms_p99": percentile(lags, 99),
        "lag_ms_max": percentile(lags, 100),
        "lag_ms_counts": {str(step): count for step, count in lag_counts(lags)},
        "duration_ms": round(batch.duration_seconds * 1000, 3),
    }


def percentile(ordered: Sequence[float], percent: int) -> float | None:
    """Return the nearest-rank percentile, or None for an empty list."""
    return round(ordered[-(-len(ordered) * percent // 100) - 1], 3) if ordered else None


def lag_counts(ordered: Sequence[float]) -> Iterator[tuple[int, int]]:
    """Yield each step that lags lie in, and how many; the steps are few, so each is looked up once."""
    begin = 0
    while begin < len(ordered):
        step = lag_step(ordered[begin])
        end = max(bisect_right(ordered, 1.1**step), begin + 1)
        yield step, end - begin
        begin = end


def lag_step(lag_ms: float) -> int:
    """Return the i for which the lag is in (1.1^(i-1), 1.1^i] milliseconds."""
    return math.ceil(math.log(max(lag_ms, 0.001)) / LAG_GROWTH)


def log_postponed(batch: Batch) -> None:
    """Log how many events could not be applied now, and why the first of them."""
    if len(batch.final) < len(batch.events):
        postponed = [event for event in batch.events if not batch.settlements[event.id].is_final]
        first, settlement = postponed[0], batch.settlements[postponed[0].id]
        logger.warning(
            "events_postponed",
            events=len(postponed),
            first_event_id=first.id,
            collection_id=first.collection_id,
            sqlstate=settlement.sqlstate,
            error=settlement.error,
        )


def log_superseded(letters: Sequence[int]) -> None:
    """Log which dead letters newer ones of their collections closed."""
    if letters:
        logger.info("dead_letters_superseded", letters=len(letters), event_ids=list(letters[:MOST_NAMED]))


def event_lines(batch: Batch) -> Iterator[Line]:
    """Yield level and fields of each event that is done with; one that died is an error."""
    for event in batch.final:
        settlement = batch.settlements[event.id]
        is_sampled = event.source == Source.BACKFILL and settlement.outcome is Outcome.APPLIED
        if is_sampled and event.id % SAMPLED_ONE_OF:
            continue
        fields: dict[str, object] = {
            "event_id": event.id,
            "collection_id": event.collection_id,
            "project_id": event.project_id,
            "event_type": event.event_type,
            "source": event.source,
            "outcome": settlement.outcome,
            "lag_ms": round(batch.lag_ms(event), 3),
        }
        if settlement.error is not None:
            fields |= {"sqlstate": settlement.sqlstate, "error": settlement.error}
        if event.trace_id is not None:
            fields["trace_id"] = event.trace_id
        if is_sampled:
            fields["one_of"] = SAMPLED_ONE_OF
        yield ("error" if settlement.outcome is Outcome.DEAD else "info"), fields
