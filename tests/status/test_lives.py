"""What the command says of real databases: what was done there, whose login it is, who locks what."""

import asyncio

import asyncpg
import pytest
from sqlalchemy.engine import make_url
from sqlalchemy.ext.asyncio import AsyncEngine

from shared import backfill_runs, dead_letters
from shared.backfill_runs import BackfillOptions
from shared.events import Source
from shared.settings import Settings
from shared.status.look import look
from shared.status.session import engine_of
from tests.backfill.driving import driven, started, take, until_waiting
from tests.dead_letters.test_replay import dead
from tests.draining import drain, run_once
from tests.legacy_rows import set_collection
from tests.rollback.situations import rolled_back
from tests.status.operator import facts_of, seen
from tests.status.scenes import ALIVE, audited, in_sync

LATER = (
    "INSERT INTO outbox_events (aggregate_id, event_type, source, payload, schema_version)"
    " VALUES ('c1', 'collection.updated', 'api', '{}', 9)"
)


async def test_nothing_is_in_sync_that_was_not_proved_since_it_was_last_changed(
    engine: AsyncEngine, sql: asyncpg.Connection, database_url: str
) -> None:
    """One life, from before the backfill to after a rollback, and forward again."""
    await sql.execute(ALIVE)

    async def word() -> str:
        return (await seen(database_url)).word

    for name in ("c1", "c2"):
        await set_collection(engine, name, "text")
    await sql.execute("DELETE FROM outbox_events")
    assert await word() == "not_backfilled"
    await audited(engine)
    assert await word() == "not_backfilled"

    run = await take(engine, await started(engine))
    await sql.execute("UPDATE backfill_runs SET heartbeat_at = heartbeat_at + interval '1 hour'")
    assert await word() == "backfilling"
    async with engine.begin() as connection:
        await backfill_runs.pause(connection)
    assert await word() == "backfill_paused"
    async with engine.begin() as connection:
        await backfill_runs.resume(connection, in_worker=False)
    assert await word() == "interrupted"
    await driven(engine, run.id)
    await audited(engine)
    assert await word() == "settling"
    await drain(engine)
    await sql.execute("DELETE FROM audit_runs WHERE verdict = 'pending'")
    assert await word() == "not_audited"
    await audited(engine)
    assert await word() == "in_sync"

    await sql.execute("UPDATE project_collections SET research_context = 'drift' WHERE collection_id = 'c1'")
    assert await word() == "in_sync"  # as far as anybody knows
    await audited(engine, project_id="p1")
    assert await word() == "drift"
    await audited(engine)
    assert await word() == "drift"
    mending = asyncio.create_task(audited(engine, repair=True))
    while not await sql.fetchval("SELECT count(*) FROM outbox_events"):
        await asyncio.sleep(0.01)
    assert await word() == "settling"
    await drain(engine)
    assert (await mending).verdict == "repaired"
    assert await word() == "repaired"
    await audited(engine)
    assert await word() == "in_sync"

    await sql.execute("DELETE FROM worker_processes")
    assert await word() == "stopped"
    await rolled_back(engine)
    assert await word() == "rolled_back"
    await audited(engine)
    await sql.execute(ALIVE)
    assert await word() == "rolled_back"


async def test_a_target_that_psql_has_locked_is_named_with_its_holder_and_nobody_waits_for_it(
    engine: AsyncEngine, sql: asyncpg.Connection, database_url: str
) -> None:
    await in_sync(engine, sql)
    await set_collection(engine, "c1", "new")
    holder = await asyncpg.connect(database_url, server_settings={"application_name": "psql"})
    waiter = await asyncpg.connect(
        database_url, server_settings={"application_name": "collection-sync worker"}
    )
    async with holder.transaction():
        await holder.execute("LOCK TABLE project_collections IN ACCESS EXCLUSIVE MODE")
        await sql.execute("UPDATE outbox_events SET created_at = created_at - interval '26 seconds'")
        said = await seen(database_url)  # between two attempts
        assert said.word == "stuck"
        waiting = asyncio.create_task(waiter.execute("DELETE FROM project_collections WHERE false"))
        await until_waiting(sql, "^collection-sync worker$")
        facts = await facts_of(database_url)
        said = await seen(database_url)
        assert said.word == "stuck"
        assert f"pid {holder.get_server_pid()} (psql) for" in said.sentence
        assert [one.waiting for one in facts.holders or ()] == ["collection-sync worker"]
        assert facts.unknown == {}
    await waiting
    await drain(engine)
    assert (await seen(database_url)).word == "in_sync"
    await holder.close()
    await waiter.close()


@pytest.mark.parametrize("table", ["outbox_events", "audit_runs", "backfill_runs", "worker_processes"])
async def test_what_lies_in_a_locked_table_is_a_dash_and_never_in_sync(
    table: str, engine: AsyncEngine, sql: asyncpg.Connection, database_url: str
) -> None:
    await in_sync(engine, sql)
    async with sql.transaction():
        await sql.execute(f"LOCK TABLE {table} IN ACCESS EXCLUSIVE MODE")
        facts, said = await facts_of(database_url), await seen(database_url)
    assert "another session locks its table" in facts.unknown.values()
    assert (said.word, said.is_well) in {("unknown", False), ("stuck", False)}
    assert [holder.pid for holder in facts.holders or ()] == [sql.get_server_pid()]


async def test_a_spell_in_which_nothing_can_be_written_is_told(
    engine: AsyncEngine, sql: asyncpg.Connection, database_url: str
) -> None:
    await in_sync(engine, sql)
    name = make_url(database_url).database
    await sql.execute(f"ALTER DATABASE {name} SET default_transaction_read_only = on")
    assert (await seen(database_url)).word == "read_only"
    await sql.execute(f"ALTER DATABASE {name} RESET default_transaction_read_only")
    assert (await seen(database_url)).word == "in_sync"


async def test_sequences_that_are_behind_come_before_all_else(
    engine: AsyncEngine, sql: asyncpg.Connection, database_url: str
) -> None:
    await in_sync(engine, sql)
    await sql.execute("SELECT setval('outbox_events_id_seq', 1)")
    said = await seen(database_url)
    assert (said.word, "outbox_events_id_seq is behind" in said.sentence) == ("unfit", True)


async def test_a_replay_that_dies_again_is_told_from_a_letter_that_nobody_replayed(
    engine: AsyncEngine, sql: asyncpg.Connection, database_url: str
) -> None:
    await in_sync(engine, sql)
    letter = await dead(engine, sql)
    said = await seen(database_url)
    assert (said.word, said.next_steps[1]) == (
        "dead_letters",
        f"python -m worker.dead_letters replay --wait {letter}",
    )
    assert "died again" not in said.sentence
    await sql.execute("ALTER TABLE project_collections ADD CHECK (research_context <> 'text') NOT VALID")
    await sql.execute("UPDATE project_collections SET research_context = 'other' WHERE collection_id = 'c1'")
    async with engine.begin() as connection:
        await dead_letters.replay(connection, [letter])
    await run_once(engine)
    said = await seen(database_url)
    assert (said.word, "died again" in said.sentence) == ("dead_letters", True)


async def test_a_connection_from_before_a_read_only_spell_and_one_from_within_it_both_say_what_is_so_now(
    settings: Settings, sql: asyncpg.Connection, database_url: str
) -> None:
    name = make_url(database_url).database
    async with engine_of(settings) as before, engine_of(settings) as within:
        assert not (await look(before)).server.is_read_only
        await sql.execute(f"ALTER DATABASE {name} SET default_transaction_read_only = on")
        assert [(await look(engine)).server.is_read_only for engine in (before, within)] == [True, True]
        login = f"ALTER ROLE current_user IN DATABASE {name}"
        await sql.execute(f"{login} SET default_transaction_read_only = no")
        assert [(await look(engine)).server.is_read_only for engine in (before, within)] == [False, False]
        await sql.execute(f"{login} SET default_transaction_read_only = true")
        await sql.execute(f"ALTER DATABASE {name} RESET default_transaction_read_only")
        assert [(await look(engine)).server.is_read_only for engine in (before, within)] == [True, True]
        await sql.execute(f"{login} RESET default_transaction_read_only")
        assert [(await look(engine)).server.is_read_only for engine in (before, within)] == [False, False]


async def test_events_of_a_later_version_are_told(
    engine: AsyncEngine, sql: asyncpg.Connection, database_url: str
) -> None:
    await in_sync(engine, sql)
    await sql.execute(LATER)
    assert (await seen(database_url)).word == "later_version"


async def test_an_operator_sees_all_and_a_reader_all_but_the_sequences_and_who_let_go(
    engine: AsyncEngine, sql: asyncpg.Connection, urls: dict[str, str]
) -> None:
    await in_sync(engine, sql)
    await set_collection(engine, "c1", "new", source=Source.REPAIR)
    for role in ("operator", "reader"):
        facts = await facts_of(urls[role])
        assert facts.unknown == {}, role
        assert (await seen(urls[role])).word == "settling"
        assert (facts.sequence_faults is None) == (role == "reader")
    await drain(engine)
    await started(engine, BackfillOptions(in_worker=True))
    assert {(await seen(urls[role])).word for role in ("operator", "reader")} == {"backfilling"}
