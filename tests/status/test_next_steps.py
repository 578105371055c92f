"""An operator who only types what the command says gets from a bare database to *in sync*, and back to it."""

import signal
from collections.abc import Iterator

import asyncpg
import pytest

from tests.databases import Databases
from tests.drift import drift
from tests.legacy_rows import seed
from tests.phase1.script import BEFORE_PHASE_1, SCRIPT
from tests.processes import environment
from tests.status.operator import Operator, operator

POISON = """
    INSERT INTO outbox_events (aggregate_id, event_type, source, payload)
    VALUES ('c05', 'collection.updated', 'api', '{"project_id": "p3", "research_context": 7}')
"""
LINKED = "c03"  # to another project as well, which is no drift
LONG_GONE = """
    UPDATE worker_processes SET heartbeat_at = heartbeat_at - interval '1 minute',
        ended_at = ended_at - interval '5 minutes'
"""
BEGUN = """
    INSERT INTO backfill_runs (status, in_worker, max_pending, chunk_size, planned, end_key, driver,
        heartbeat_at)
    VALUES ($1, false, 100, 10, 35, 'c35', 'gone', clock_timestamp() - interval '1 minute')
"""


@pytest.fixture
def bare_url(databases: Databases) -> Iterator[str]:
    with databases.clone("template1") as url:
        yield url


@pytest.mark.slow
async def test_an_operator_who_types_what_is_said_gets_to_in_sync_and_back_to_it_from_wherever_it_breaks(
    bare_url: str, redis_url: str
) -> None:
    with operator(environment(bare_url, redis_url)) as person:
        said = await person.see()
        assert said.word == "not_migrated"
        await person.type(said.next_steps[0], "")
        sql = await asyncpg.connect(bare_url)
        await seed(sql)
        await sql.execute(BEFORE_PHASE_1)
        words = await person.until_all_is_well()
        assert words[0] == "not_backfilled"
        assert await drift(sql) == [LINKED]

        await _drift_by_sql(person, sql)
        await _dead_letter(person, sql)
        await _sequence_that_went_back(person, sql)
        await _rolled_back(person, sql)
        await _killed_while_paused(person, sql)
        await sql.close()


async def _drift_by_sql(person: Operator, sql: asyncpg.Connection) -> None:
    await sql.execute("UPDATE project_collections SET research_context = 'drift' WHERE collection_id = 'c07'")
    await person.type("python -m worker.audit", "")
    assert (await person.until_all_is_well())[0] == "drift"
    assert await drift(sql) == [LINKED]


async def _dead_letter(person: Operator, sql: asyncpg.Connection) -> None:
    await sql.execute(POISON)
    await person.until("dead_letters")
    assert (await person.until_all_is_well())[0] == "dead_letters"
    assert await sql.fetchval("SELECT count(*) FROM outbox_dead_letters WHERE state = 'replayed'") == 1


async def _sequence_that_went_back(person: Operator, sql: asyncpg.Connection) -> None:
    await sql.execute("SELECT setval('outbox_events_id_seq', 1)")
    assert (await person.until_all_is_well())[0] == "unfit"


async def _rolled_back(person: Operator, sql: asyncpg.Connection) -> None:
    await person.stop_workers()
    said = await person.see()
    assert (said.word, said.next_steps) == ("stopped", ["python -m worker"])
    assert "ended in good order" in said.sentence
    await person.type(f"python {SCRIPT} --rollback --yes", "")
    assert (await person.until_all_is_well())[0] == "rolled_back"
    assert await drift(sql) == [LINKED]


async def _killed_while_paused(person: Operator, sql: asyncpg.Connection) -> None:
    await person.stop_workers(signal.SIGKILL)
    await sql.execute(LONG_GONE)
    said = await person.see()
    assert said.word == "stopped"
    assert "without a word" in said.sentence
    await sql.execute(BEGUN, "paused")
    assert (await person.until_all_is_well())[0] == "backfill_paused"
    await sql.execute(BEGUN, "running")
    assert (await person.until_all_is_well())[0] == "interrupted"
