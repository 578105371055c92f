"""What cannot be applied, and what merely cannot be applied now, must not stop anything else."""

from collections import Counter

import asyncpg
import pytest
from sqlalchemy.ext.asyncio import AsyncEngine
from structlog.testing import capture_logs

from shared.events import Source
from tests.draining import run_once
from tests.drift import drift
from tests.legacy_rows import set_collection, target_rows
from tests.worker.events import append_again, append_raw, outcomes
from worker.drainer import Drainer
from worker.relay.apply import UnappliedError
from worker.relay.outcomes import Outcome

# Refuses the rows of some collections in the way that the test names.
REFUSING = """
    CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$
    BEGIN
        IF NEW.collection_id LIKE 'bad%' THEN {how}; END IF;
        RETURN NEW;
    END $$;
    CREATE TRIGGER refuse BEFORE INSERT ON project_collections FOR EACH ROW EXECUTE FUNCTION refuse();
"""
SWALLOW = "RETURN NULL"
UNEXPLAINED = (
    SWALLOW,
    "RAISE EXCEPTION USING ERRCODE = '21000'",
    "RAISE EXCEPTION USING ERRCODE = '38000'",
    "RAISE EXCEPTION USING ERRCODE = 'ZZ999'",
)


async def test_of_500_events_with_one_poison_499_are_applied_in_the_same_pass_and_one_is_dead(
    engine: AsyncEngine, sql: asyncpg.Connection
) -> None:
    for number in range(250):
        await set_collection(engine, f"before{number}")
    poison = await append_raw(sql, "poisoned", created_at="tomorrow-ish")
    for number in range(249):
        await set_collection(engine, f"after{number}")
    batch = await run_once(engine)
    assert Counter(settlement.outcome for settlement in batch.settlements.values()) == {
        Outcome.APPLIED: 499,
        Outcome.DEAD: 1,
    }
    assert await sql.fetchval("SELECT count(*) FROM project_collections") == 499
    assert await sql.fetchval("SELECT count(*) FROM outbox_events") == 0
    (letter,) = await sql.fetch("SELECT id, state, sqlstate, error, attempts FROM outbox_dead_letters")
    assert tuple(letter) == (poison, "dead", "22007", "invalid datetime format", 1)


async def test_the_reason_names_what_refused_the_row_and_quotes_no_value(
    engine: AsyncEngine, sql: asyncpg.Connection
) -> None:
    await sql.execute("""
        ALTER TABLE project_collections
            ADD CONSTRAINT no_rumours CHECK (research_context NOT LIKE '%rumour%');
        CREATE FUNCTION gossip() RETURNS trigger LANGUAGE plpgsql AS $$
        BEGIN
            IF NEW.research_context LIKE '%gossip%' THEN
                RAISE EXCEPTION 'I heard: %', NEW.research_context USING HINT = NEW.research_context;
            END IF;
            RETURN NEW;
        END $$;
        CREATE TRIGGER gossip BEFORE INSERT ON project_collections FOR EACH ROW EXECUTE FUNCTION gossip();
    """)
    await set_collection(engine, "c1", "rumour of a canary")
    await set_collection(engine, "c2", "gossip of a canary")
    await append_raw(sql, "c3", created_at="a canary")
    with capture_logs() as lines:
        await Drainer(engine).drain("sweep")
    errors = [row["error"] for row in await sql.fetch("SELECT error FROM outbox_dead_letters ORDER BY id")]
    assert errors == [
        "check violation, table project_collections, constraint no_rumours",
        "raise, PL/pgSQL function gossip() line 4 at RAISE",
        "invalid datetime format",
    ]
    assert "canary" not in f"{lines} {errors}"


@pytest.mark.parametrize("how", UNEXPLAINED)
async def test_a_row_that_alone_is_refused_for_no_known_reason_is_dead_when_another_goes_through(
    how: str, engine: AsyncEngine, sql: asyncpg.Connection
) -> None:
    await sql.execute(REFUSING.format(how=how))
    bad = await set_collection(engine, "bad")
    good = [await set_collection(engine, f"good{number}") for number in range(5)]
    assert await outcomes(engine) == {bad: Outcome.DEAD} | dict.fromkeys(good, Outcome.APPLIED)


@pytest.mark.parametrize("how", UNEXPLAINED)
async def test_rows_that_are_refused_for_no_known_reason_wait_while_nothing_shows_whose_fault_it_is(
    how: str, engine: AsyncEngine, sql: asyncpg.Connection
) -> None:
    await set_collection(engine, "gone")
    await run_once(engine)
    await sql.execute(REFUSING.format(how=how))
    bad = [await set_collection(engine, "bad", str(number)) for number in range(2)]
    with pytest.raises((asyncpg.PostgresError, UnappliedError)):
        await run_once(engine)

    gone = await set_collection(engine, "gone", is_active=False)  # a deletion says nothing of the others
    assert await outcomes(engine) == {gone: Outcome.APPLIED} | dict.fromkeys(bad, Outcome.POSTPONED)
    assert await sql.fetchval("SELECT count(*) FROM outbox_dead_letters") == 0

    await sql.execute("DROP TRIGGER refuse ON project_collections")
    assert await outcomes(engine) == {bad[0]: Outcome.CONFLATED, bad[1]: Outcome.APPLIED}
    assert await drift(sql) == []


async def test_a_suspect_is_tried_once_more_after_another_of_its_kind_went_through(
    engine: AsyncEngine, sql: asyncpg.Connection
) -> None:
    """What refused it may have been mended meanwhile: here as soon as the first that goes through does."""
    await sql.execute("CREATE TABLE mended AS SELECT 1 AS one WHERE false")
    await sql.execute(REFUSING.format(how="IF NOT EXISTS (SELECT FROM mended) THEN RETURN NULL; END IF"))
    await sql.execute("""
        CREATE FUNCTION mend() RETURNS trigger LANGUAGE plpgsql AS
            $$ BEGIN INSERT INTO mended VALUES (1); RETURN NULL; END $$;
        CREATE TRIGGER mend AFTER INSERT ON project_collections FOR EACH ROW EXECUTE FUNCTION mend();
    """)
    bad = await set_collection(engine, "bad")
    good = await set_collection(engine, "good")
    assert await outcomes(engine) == {bad: Outcome.APPLIED, good: Outcome.APPLIED}


async def test_a_row_that_somebody_holds_makes_only_its_own_event_wait(
    engine: AsyncEngine, sql: asyncpg.Connection, database_url: str
) -> None:
    await set_collection(engine, "held")
    await run_once(engine)
    held = [await set_collection(engine, "held", str(number)) for number in range(2)]
    free = [await set_collection(engine, f"free{number}") for number in range(5)]
    name = database_url.rpartition("/")[2]
    await sql.execute(f"ALTER DATABASE \"{name}\" SET lock_timeout = '300ms'")
    await engine.dispose()  # the worker's sessions have such a bound, see worker/main.py
    async with sql.transaction():
        await sql.execute("SELECT FROM project_collections WHERE collection_id = 'held' FOR UPDATE")
        with capture_logs() as lines:
            await Drainer(engine).drain("sweep")
        assert await sql.fetchval("SELECT count(*) FROM project_collections") == 1 + len(free)
        (postponed,) = [line for line in lines if line["event"] == "events_postponed"]
        assert (postponed["events"], postponed["first_event_id"]) == (2, held[0])
        assert sum(line["event"] == "event_settled" for line in lines) == len(free)
    assert await outcomes(engine) == {held[0]: Outcome.CONFLATED, held[1]: Outcome.APPLIED}
    assert await sql.fetchval("SELECT count(*) FROM outbox_dead_letters") == 0


@pytest.mark.parametrize("code", ["40001", "40P01", "57P01", "53200"])
async def test_a_fault_that_passes_by_itself_costs_no_event_its_life(
    code: str, engine: AsyncEngine, sql: asyncpg.Connection
) -> None:
    await sql.execute(REFUSING.format(how=f"RAISE EXCEPTION USING ERRCODE = '{code}'"))
    await set_collection(engine, "bad")
    await set_collection(engine, "good")
    for _ in range(8):
        with pytest.raises(asyncpg.PostgresError):
            await run_once(engine)
    assert await sql.fetch("SELECT attempts FROM outbox_events") == [(0,), (0,)]
    assert await sql.fetchval("SELECT count(*) FROM outbox_dead_letters") == 0
    await sql.execute("DROP TRIGGER refuse ON project_collections")
    assert Counter((await outcomes(engine)).values()) == {Outcome.APPLIED: 2}


async def test_an_event_that_dies_twice_is_one_letter_and_stops_nothing(
    engine: AsyncEngine, sql: asyncpg.Connection
) -> None:
    poison = await append_raw(sql, "c1", created_at="never")
    (event,) = await sql.fetch("SELECT * FROM outbox_events")
    await run_once(engine)
    await sql.execute("UPDATE outbox_dead_letters SET state = 'discarded', closed_at = now()")
    await append_again(sql, poison, dict(event))
    good = await set_collection(engine, "c2", source=Source.API)
    assert await outcomes(engine) == {poison: Outcome.DEAD, good: Outcome.APPLIED}
    letters = await sql.fetch("SELECT id, state, attempts, closed_at FROM outbox_dead_letters")
    assert [tuple(row) for row in letters] == [(poison, "dead", 2, None)]


async def test_a_dead_letter_does_not_stop_its_collection(
    engine: AsyncEngine, sql: asyncpg.Connection
) -> None:
    await set_collection(engine, "c1", "first")
    await append_raw(sql, "c1", created_at="never")
    await run_once(engine)
    await set_collection(engine, "c1", "second")
    await run_once(engine)
    assert [row["research_context"] for row in await target_rows(sql, "c1")] == ["second"]
