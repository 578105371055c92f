"""Relays that each miss one mechanism between the outbox and `project_collections`."""

from collections.abc import Collection, Sequence
from dataclasses import replace

import asyncpg
import pytest

from shared.events import EventType
from shared.lanes import KNOWN_LANES
from shared.postgres import faults
from shared.projection import COLUMNS, NAMES, VALUES, names_of
from tests.twins.replacing import Put, all_of, instead_of, replaced
from worker.relay import apply as right_apply
from worker.relay import claim as right_claim
from worker.relay import run as right_relay
from worker.relay.claim import CLAIM, ClaimedEvent, Lanes, Position
from worker.relay.faults import ROW_CLASSES, is_row_fault
from worker.relay.outcomes import Outcome, Settlement
from worker.relay.settle import _Trial

DELETE_HOME_ROWS = """
    DELETE FROM project_collections AS target USING outbox_events AS event
    WHERE event.id = ANY($1) AND event.event_type = 'collection.deleted'
        AND target.project_id = event.payload ->> 'project_id' AND target.collection_id = event.aggregate_id
"""
# As one would write it first: each conflict draws an id of the target's sequence.
UPSERT = f"""
    INSERT INTO project_collections (project_id, collection_id, {NAMES})
    SELECT payload ->> 'project_id', aggregate_id, {VALUES}
    FROM outbox_events
    WHERE id = ANY($1)
    ORDER BY aggregate_id
    ON CONFLICT (project_id, collection_id) DO UPDATE SET ({NAMES}) = ROW ({names_of("excluded")})
"""  # noqa: S608 - constants
UPSERT_LIVING = replaced(UPSERT, "= ANY($1)", "= ANY($1) AND event_type <> 'collection.deleted'")
# Reads every field that is named like a column of the target, and demands what those columns demand.
RECORD = "jsonb_populate_record(NULL::project_collections, payload)"
OF_RECORD = ", ".join(f"({RECORD}).{column.name}" for column in COLUMNS)
INSERT_RECORDS = replaced(right_apply.INSERT_ROWS, VALUES, OF_RECORD)
UPDATE_RECORDS = replaced(right_apply.UPDATE_ROWS, VALUES, OF_RECORD)
FORGET_TOMBSTONES = """
    DELETE FROM applied_versions USING outbox_events AS event
    WHERE event.id = ANY($1) AND collection_id = event.aggregate_id AND is_deleted
"""
WRITE_PASSED = replaced(UPSERT, "= ANY($1)", "IN (SELECT version FROM passed WHERE NOT is_deleted)")
GUARD_AND_APPLY = f"""
    WITH passed (version, is_deleted, retires, row_id) AS ({right_apply.GUARD}),
    retired AS (
        DELETE FROM project_collections AS target USING outbox_events AS event, passed
        WHERE event.id = passed.version AND passed.is_deleted
            AND target.project_id = event.payload ->> 'project_id'
            AND target.collection_id = event.aggregate_id
    ),
    written AS ({WRITE_PASSED})
    SELECT version FROM passed
"""  # noqa: S608 - made of constants
ADD_GUARDS = """
    INSERT INTO applied_versions (collection_id, version, project_id, is_deleted)
    SELECT DISTINCT ON (aggregate_id) aggregate_id, 0, payload ->> 'project_id', true
    FROM outbox_events WHERE id = ANY($1) ORDER BY aggregate_id
    ON CONFLICT DO NOTHING
"""
GUARD_ALL = """
    UPDATE applied_versions AS guard
    SET version = event.id, is_deleted = event.event_type = 'collection.deleted'
    FROM outbox_events AS event
    WHERE event.id = ANY($1) AND guard.collection_id = event.aggregate_id AND guard.version < event.id
    RETURNING guard.version
"""

EVERY_LANE = Lanes(-(2**15), 2**15 - 1)


async def blind_upsert(connection: asyncpg.Connection, ids: Sequence[int]) -> set[int]:
    """Whoever comes last wins, however old."""
    await connection.execute(DELETE_HOME_ROWS, ids)
    await connection.execute(UPSERT_LIVING, ids)
    return set(ids)


async def guard_without_tombstone(connection: asyncpg.Connection, ids: Sequence[int]) -> set[int]:
    """A deletion forgets the version, so that an older event brings the row back."""
    passed = await right_apply.apply(connection, ids)
    await connection.execute(FORGET_TOMBSTONES, list(passed))
    return passed


async def guard_and_apply_in_one_statement(connection: asyncpg.Connection, ids: Sequence[int]) -> set[int]:
    """The deletion's snapshot is older than the lock it waited for."""
    return {row["version"] for row in await connection.fetch(GUARD_AND_APPLY, ids)}


async def apply_without_counting(connection: asyncpg.Connection, ids: Sequence[int]) -> set[int]:
    """Believe that whatever was sent to the target is there."""
    try:
        return await right_apply.apply(connection, ids)
    except right_apply.UnappliedError:
        return set(ids)


async def settle_without_conflation(
    connection: asyncpg.Connection, events: Sequence[ClaimedEvent], *, isolating: bool
) -> dict[int, Settlement]:
    """With several events of a key in one set, UPDATE … FROM takes any of them."""
    del isolating
    ids = [event.id for event in events]
    await connection.execute(ADD_GUARDS, ids)
    passed = [row["version"] for row in await connection.fetch(GUARD_ALL, ids)]
    await connection.execute(DELETE_HOME_ROWS, passed)
    await connection.execute(UPSERT_LIVING, passed)
    return {e.id: Settlement(Outcome.APPLIED if e.id in passed else Outcome.STALE) for e in events}


# Claiming and acknowledging.


class Cursor:
    """Reads on from the highest id seen: what commits late with a lower id is never seen."""

    def __init__(self) -> None:
        self._last = 0

    async def claim(
        self,
        connection: asyncpg.Connection,
        limit: int,
        _lanes: Lanes,
        _start: Position,
        _passed: Collection[int],
    ) -> list[ClaimedEvent]:
        from_there = replaced(CLAIM, "lane <= $2 AND (lane, id) > ($3, $4) AND id <> ALL($5)", "id > $2")
        in_order = replaced(from_there, "ORDER BY lane, id", "ORDER BY id")
        statement = replaced(in_order, "SKIP LOCKED", "")
        events = [ClaimedEvent(*row) for row in await connection.fetch(statement, limit, self._last)]
        self._last = max([self._last, *(event.id for event in events)])
        return events


def claim_behind_a_cursor(patch: pytest.MonkeyPatch) -> None:
    patch.setattr("worker.relay.run.claim", Cursor().claim)


async def claim_every_version(
    connection: asyncpg.Connection, limit: int, _lanes: Lanes, start: Position, _passed: Collection[int]
) -> list[ClaimedEvent]:
    """Read later versions as if they were known."""
    return await right_claim.claim(connection, limit, EVERY_LANE, start)


async def take_later_versions_for_malformed(
    connection: asyncpg.Connection, limit: int, _lanes: Lanes, start: Position, _passed: Collection[int]
) -> list[ClaimedEvent]:
    """Claim everything, and set aside what cannot be read."""
    events = await right_claim.claim(connection, limit, EVERY_LANE, start)
    return [event._replace(well_formed=event.lane in KNOWN_LANES) for event in events]


async def acknowledge_up_to_the_highest(
    connection: asyncpg.Connection, events: Sequence[ClaimedEvent]
) -> None:
    """Take for settled what came in between, or committed late."""
    await connection.execute("DELETE FROM outbox_events WHERE id <= $1", max(event.id for event in events))


async def commit_and_go_on(connection: asyncpg.Connection) -> None:
    """End the transaction that is open and begin another, unnoticed by whoever opened it."""
    await connection.execute("COMMIT")
    await connection.execute("BEGIN")


# What was acknowledged can only be applied from a copy: it shadows the outbox, in this session alone.
TAKE_OUT = """
    CREATE TEMPORARY TABLE outbox_events AS SELECT * FROM public.outbox_events WHERE id = ANY(ARRAY[{ids}]);
    DELETE FROM public.outbox_events WHERE id = ANY(ARRAY[{ids}]);
    DISCARD PLANS
"""


async def claim_and_acknowledge(
    connection: asyncpg.Connection, limit: int, lanes: Lanes, start: Position, _passed: Collection[int]
) -> list[ClaimedEvent]:
    """Acknowledge first and apply in the next transaction: a crash in between loses the events."""
    events = await right_claim.claim(connection, limit, lanes, start)
    if events:
        await connection.execute(TAKE_OUT.format(ids=", ".join(str(event.id) for event in events)))
        await commit_and_go_on(connection)
    return events


async def forget_the_copy(connection: asyncpg.Connection, _events: Sequence[ClaimedEvent]) -> None:
    await connection.execute("DROP TABLE pg_temp.outbox_events; DISCARD PLANS")


acknowledge_before_the_apply = all_of(
    instead_of("worker.relay.run.claim", claim_and_acknowledge),
    instead_of("worker.relay.run.acknowledge", forget_the_copy),
)


async def acknowledge_after_the_apply(connection: asyncpg.Connection, events: Sequence[ClaimedEvent]) -> None:
    """Apply first and acknowledge in the next transaction: a crash in between settles the events twice."""
    await commit_and_go_on(connection)
    await right_claim.acknowledge(connection, events)


def bury_apart(patch: pytest.MonkeyPatch) -> None:
    """Keep the dead letter in one transaction and acknowledge in the next."""
    right_bury = vars(right_relay)["bury"]

    async def bury(connection: asyncpg.Connection, *arguments: object) -> list[int]:
        superseded: list[int] = await right_bury(connection, *arguments)
        await commit_and_go_on(connection)
        return superseded

    patch.setattr(right_relay, "bury", bury)


# Poison and passing faults.


async def bury_the_whole_batch(trial: _Trial, events: Sequence[ClaimedEvent]) -> dict[int, Settlement]:
    """Set the neighbours of a poison event aside with it."""
    try:
        async with trial._connection.transaction():  # noqa: SLF001 - it stands for a method
            return await trial._together(events)  # noqa: SLF001
    except asyncpg.PostgresError as error:
        return {event.id: Settlement(Outcome.DEAD, faults.sqlstate(error), "bad company") for event in events}


async def halve_without_savepoints(trial: _Trial, events: Sequence[ClaimedEvent]) -> dict[int, Settlement]:
    """After the first fault PostgreSQL refuses everything in this transaction."""
    try:
        return await trial._together(events)  # noqa: SLF001 - it stands for a method
    except asyncpg.PostgresError as error:
        if not is_row_fault(error):
            raise
        if len(events) == 1:
            return {events[0].id: Settlement(Outcome.DEAD, faults.sqlstate(error), "poison")}
    middle = len(events) // 2
    left = await halve_without_savepoints(trial, events[:middle])
    return left | await halve_without_savepoints(trial, events[middle:])


async def find_none(_connection: asyncpg.Connection, _stale: Sequence[int]) -> set[int]:
    """Take every stale event for an older one."""
    return set()


UPDATE_NOTHING = "SELECT id FROM project_collections WHERE id = ANY($1) AND false"
ANY_INDEX = "SELECT true FROM (SELECT $1::text, $2::text, $3::text[]) AS named"
ANY_KEY = "SELECT true FROM (SELECT $1::text, $2::text, $3::text) AS named"


async def convict_at_once(_trial: _Trial, _event: ClaimedEvent, settlement: Settlement) -> Settlement:
    """Take an event for guilty that failed alone, whatever became of others."""
    return replace(settlement, outcome=Outcome.DEAD)


async def convict_when_another_went_through(
    trial: _Trial, event: ClaimedEvent, settlement: Settlement
) -> Settlement:
    """Take an event for guilty that failed before another of its kind went through."""
    went_through = (event.event_type == EventType.DELETED) in trial._went_through  # noqa: SLF001
    return replace(settlement, outcome=Outcome.DEAD) if went_through else settlement


passing_faults_are_the_rows: Put = all_of(
    instead_of("worker.relay.faults.ROW_CLASSES", ROW_CLASSES | faults.TRANSIENT_CLASSES | {"40", "55"}),
    instead_of("shared.postgres.faults.TRANSIENT_CLASSES", frozenset()),
    instead_of("shared.postgres.faults.TRANSIENT_CODES", frozenset()),
)
