"""Repair: an event for each finding, and the proof afterwards. The target itself is never written."""

from dataclasses import dataclass

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from shared.events import EventType, Source
from shared.outbox import append_states
from shared.postgres.database import driver_connection
from worker.audit.comparison import CLIENT_TIMEOUT_SECONDS, DIFFERS, IN_SLICE, PAIRS, WAITS, Slice, prepare
from worker.audit.findings import Finding

# An orphan is "updated": `append_states` makes that a deletion, unless the collection is active again.
EVENT_TYPES = {
    "missing": EventType.CREATED,
    "mismatched": EventType.UPDATED,
    "orphaned": EventType.UPDATED,
}

# Served by audit_findings_pkey. A collection that does not exist has no state to append.
REMEMBER = text("""
    UPDATE audit_findings AS finding
    SET repair_event_id = event.id,
        outcome = CASE WHEN event.id IS NULL THEN 'still_differs' END
    FROM unnest(CAST(:collection_ids AS varchar[]), CAST(:event_ids AS bigint[])) AS event (collection_id, id)
    WHERE finding.audit_run_id = :run_id AND finding.collection_id = event.collection_id
""")

# Served by audit_findings_pkey and outbox_events_pkey.
UNSETTLED = text("""
    SELECT count(*) FROM audit_findings AS finding
    JOIN outbox_events AS event ON event.id = finding.repair_event_id
    WHERE finding.audit_run_id = :run_id
""")

REPAIRED_IN_SLICE = f"""{IN_SLICE} AND collection_id IN (
        SELECT collection_id FROM audit_findings
        WHERE audit_run_id = $4::bigint AND repair_event_id IS NOT NULL
            AND outcome IS DISTINCT FROM 'repaired'
    )"""  # noqa: S608 - made of constants

# The audit's comparison once more, of the repaired keys that were not seen to agree yet. $4 run.
VERIFY = f"""
    UPDATE audit_findings AS finding
    SET outcome = CASE
        WHEN verified.differs THEN 'still_differs' WHEN verified.waits THEN 'pending' ELSE 'repaired' END
    FROM (
        SELECT repaired.collection_id,
            coalesce(bool_or(compared.differs AND NOT compared.waits), false) AS differs,
            coalesce(bool_or(compared.differs AND compared.waits), false) AS waits
        FROM (
            SELECT collection_id FROM audit_findings
            WHERE audit_run_id = $4::bigint AND repair_event_id IS NOT NULL
                AND outcome IS DISTINCT FROM 'repaired' AND {IN_SLICE}
        ) AS repaired
        LEFT JOIN (
            SELECT pair.collection_id, {DIFFERS} AS differs, {WAITS} AS waits
            FROM {PAIRS.format(scope=REPAIRED_IN_SLICE)}
        ) AS compared USING (collection_id)
        GROUP BY repaired.collection_id
    ) AS verified
    WHERE finding.audit_run_id = $4::bigint AND finding.collection_id = verified.collection_id
"""  # noqa: S608 - made of constants

OUTCOMES = text("""
    SELECT coalesce(outcome, 'none') AS outcome, count(*) AS findings
    FROM audit_findings WHERE audit_run_id = :run_id GROUP BY 1
""")


@dataclass(frozen=True, slots=True)
class Outcomes:
    """How many findings of a run are repaired, still differ, or wait for their event."""

    repaired: int = 0
    still_differs: int = 0
    pending: int = 0


async def append_repairs(engine: AsyncEngine, run_id: int, page: list[Finding]) -> int:
    """Append the present state of these collections in one short transaction; return how many there were.

    Each is locked and read again: what was deleted or brought back since it was found stays so.
    """
    event_ids: dict[str, int] = {}
    async with engine.begin() as connection:
        for kind, event_type in EVENT_TYPES.items():
            ids = [finding.collection_id for finding in page if finding.kind == kind]
            if ids:
                event_ids |= await append_states(connection, ids, event_type, Source.REPAIR)
        await _remember(connection, run_id, page, event_ids)
    return len(event_ids)


async def _remember(
    connection: AsyncConnection, run_id: int, page: list[Finding], event_ids: dict[str, int]
) -> None:
    ids = [finding.collection_id for finding in page]
    events = {"collection_ids": ids, "event_ids": [event_ids.get(collection_id) for collection_id in ids]}
    await connection.execute(REMEMBER, {"run_id": run_id, **events})


async def count_unsettled(engine: AsyncEngine, run_id: int) -> int:
    """Return how many of the run's repair events are pending."""
    async with engine.connect() as connection:
        unsettled: int = (await connection.execute(UNSETTLED, {"run_id": run_id})).scalar_one()
    return unsettled


async def verify(engine: AsyncEngine, run_id: int, scope: Slice) -> None:
    """Compare each repaired pair of the slice again, unless it was seen to agree, and write its outcome."""
    async with driver_connection(engine) as connection, connection.transaction():
        await prepare(connection)
        await connection.execute(VERIFY, *scope.arguments, run_id, timeout=CLIENT_TIMEOUT_SECONDS)


async def outcomes(engine: AsyncEngine, run_id: int) -> Outcomes:
    """Count the run's findings by what became of them."""
    async with engine.connect() as connection:
        counts = {row.outcome: row.findings for row in await connection.execute(OUTCOMES, {"run_id": run_id})}
    counts.pop("none", None)
    return Outcomes(**counts)
