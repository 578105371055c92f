"""Letting dead letters go: nothing newer is overwritten, nothing is replayed twice, nothing is lost."""

import asyncio
from types import SimpleNamespace

import asyncpg
import pytest
from sqlalchemy.ext.asyncio import AsyncEngine
from structlog.testing import capture_logs

from shared import dead_letters
from shared.dead_letters import Replay, Selection
from tests.draining import drain
from tests.drift import drift
from tests.legacy_rows import set_collection, target_rows
from tests.processes import HANG_SECONDS
from tests.race import freezing
from tests.worker.events import append_raw
from worker.dead_letters.upkeep import LetterUpkeep, close_overtaken, prune


async def dead(engine: AsyncEngine, sql: asyncpg.Connection, collection_id: str = "c1") -> int:
    """Let an event of the collection die and return its id."""
    home = await sql.fetchval("SELECT project_id FROM collections WHERE collection_id = $1", collection_id)
    event_id = await append_raw(sql, collection_id, project_id=home or "p1", created_at="never")
    await drain(engine)
    return event_id


async def replayed(engine: AsyncEngine, *ids: int) -> Replay:
    async with engine.begin() as connection:
        return await dead_letters.replay(connection, ids)


async def reopen(sql: asyncpg.Connection, *ids: int) -> None:
    """Leave letters open as the release before does, which closes none for a newer one of its collection."""
    await sql.execute(
        "UPDATE outbox_dead_letters SET state = 'dead', closed_at = NULL WHERE id = ANY($1)", list(ids)
    )


async def states(sql: asyncpg.Connection) -> dict[int, str]:
    return dict(await sql.fetch("SELECT id, state FROM outbox_dead_letters"))


async def test_a_replay_appends_what_the_collection_is_now_not_what_died(
    engine: AsyncEngine, sql: asyncpg.Connection
) -> None:
    await set_collection(engine, "c1", "when it died")
    letter = await dead(engine, sql)
    await sql.execute("UPDATE collections SET description = 'what it is now'")
    done = await replayed(engine, letter)
    assert list(done.replayed) == [letter]
    (event,) = await sql.fetch("SELECT id, source, lane FROM outbox_events")
    assert tuple(event) == (done.replayed[letter], "repair", 1)
    await drain(engine)
    assert [row["research_context"] for row in await target_rows(sql, "c1")] == ["what it is now"]
    assert await states(sql) == {letter: "replayed"}


async def test_a_replay_brings_nothing_back_that_was_deleted_since(
    engine: AsyncEngine, sql: asyncpg.Connection
) -> None:
    await set_collection(engine, "c1", "alive")
    letter = await dead(engine, sql)
    await set_collection(engine, "c1", "alive", is_active=False)
    await replayed(engine, letter)
    await drain(engine)
    assert await target_rows(sql, "c1") == []


async def test_a_write_that_commits_while_a_replay_waits_for_its_row_is_not_overwritten(
    engine: AsyncEngine, sql: asyncpg.Connection, database_url: str
) -> None:
    """The replay waits for the writer's lock and reads the row as the writer left it."""
    await set_collection(engine, "c1", "older")
    letter = await dead(engine, sql)
    point = "commit: of a write"
    await freezing.install(sql)
    other = await asyncpg.connect(database_url)
    async with freezing.frozen(other, point):
        writing = asyncio.create_task(set_collection(engine, "c1", "newer"))
        await freezing.arrived(sql, point)
        replaying = asyncio.create_task(replayed(engine, letter))
        async with asyncio.timeout(HANG_SECONDS):
            while not (replaying.done() or await freezing.blocked(sql)):
                await asyncio.sleep(0.005)
        assert not replaying.done()
    written, done = await asyncio.gather(writing, replaying)
    await other.close()
    assert done.replayed[letter] > written
    await drain(engine)
    assert [row["research_context"] for row in await target_rows(sql, "c1")] == ["newer"]


async def test_letters_of_one_collection_share_an_event(engine: AsyncEngine, sql: asyncpg.Connection) -> None:
    await set_collection(engine, "c1")
    first, second = [await dead(engine, sql) for _ in range(2)]
    await reopen(sql, first)
    done = await replayed(engine, first, second)
    assert done.replayed[first] == done.replayed[second]
    assert await sql.fetchval("SELECT count(*) FROM outbox_events") == 1


async def test_of_two_replays_at_once_one_appends_and_the_other_finds_the_letter_closed(
    engine: AsyncEngine, sql: asyncpg.Connection
) -> None:
    await set_collection(engine, "c1")
    letter = await dead(engine, sql)
    done = await asyncio.gather(*(replayed(engine, letter) for _ in range(8)))
    assert sorted(len(replay.replayed) for replay in done) == [0] * 7 + [1]
    assert [replay.closed for replay in done if not replay.replayed] == [[letter]] * 7
    assert await sql.fetchval("SELECT count(*) FROM outbox_events") == 1


async def test_a_letter_whose_collection_does_not_exist_stays_until_it_is_discarded(
    engine: AsyncEngine, sql: asyncpg.Connection
) -> None:
    letter = await dead(engine, sql, "nowhere")
    assert (await replayed(engine, letter)).homeless == [letter]
    assert await states(sql) == {letter: "dead"}
    async with engine.begin() as connection:
        assert await dead_letters.discard(connection, [letter, 999]) == [letter]
        assert await dead_letters.discard(connection, [letter]) == []
    assert await states(sql) == {letter: "discarded"}
    assert await sql.fetchval("SELECT count(*) FROM outbox_events") == 0


async def test_a_letter_is_superseded_once_a_newer_event_of_its_collection_is_applied_and_not_before(
    engine: AsyncEngine, sql: asyncpg.Connection
) -> None:
    await set_collection(engine, "c1", "v4")
    await drain(engine)
    letter = await dead(engine, sql)
    await dead(engine, sql, "another")
    assert await close_overtaken(engine) == []  # what is applied is older

    await set_collection(engine, "c1", "v6")
    assert await close_overtaken(engine) == []  # what is newer is not applied yet
    await drain(engine)
    assert [row["research_context"] for row in await target_rows(sql, "c1")] == ["v6"]
    with capture_logs() as lines:
        await LetterUpkeep(engine, retention_days=1).tend()
    superseded = {"event": "dead_letters_superseded", "letters": 1, "event_ids": [letter]}
    assert [line for line in lines if line.items() >= superseded.items()]
    assert await close_overtaken(engine) == []
    assert (await states(sql))[letter] == "superseded"
    assert await drift(sql) == []


async def test_a_letter_that_is_buried_after_a_newer_event_was_applied_is_superseded_as_well(
    engine: AsyncEngine, sql: asyncpg.Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two workers: one has the poison in hand while the other applies what is newer."""
    # The freeze is a lock as well, and must outlast the other worker's way to it.
    monkeypatch.setattr("worker.relay.run.ISOLATED", "SET LOCAL lock_timeout = '90s'")
    point = "acknowledge: before"
    await freezing.install(sql)
    await set_collection(engine, "c1", "older")
    await drain(engine)
    letter = await append_raw(sql, "c1", created_at="never")
    async with freezing.frozen(sql, point):
        burying = asyncio.create_task(drain(engine))
        await freezing.arrived(sql, point)
        await set_collection(engine, "c1", "newer")
        applying = asyncio.create_task(drain(engine))
        await freezing.arrived(sql, point, count=2)
    await asyncio.gather(burying, applying)
    await close_overtaken(engine)
    assert await states(sql) == {letter: "superseded"}


async def test_closed_letters_are_removed_in_time_and_dead_ones_never(
    engine: AsyncEngine, sql: asyncpg.Connection
) -> None:
    old, young, still_dead = [await dead(engine, sql, f"c{number}") for number in range(3)]
    async with engine.begin() as connection:
        await dead_letters.discard(connection, [old, young])
    await sql.execute("UPDATE outbox_dead_letters SET died_at = died_at - interval '1 year'")
    age = "UPDATE outbox_dead_letters SET closed_at = closed_at - interval '{}' WHERE id = $1"
    await sql.execute(age.format("30 days 1 second"), old)
    await sql.execute(age.format("29 days"), young)
    assert await prune(engine, days=30) == 1
    assert await states(sql) == {young: "discarded", still_dead: "dead"}


async def test_upkeep_looks_once_a_second_at_most(
    engine: AsyncEngine, sql: asyncpg.Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = 100.0
    monkeypatch.setattr("worker.dead_letters.upkeep.time", SimpleNamespace(monotonic=lambda: now))
    upkeep = LetterUpkeep(engine, retention_days=30)
    await upkeep.tend()
    await set_collection(engine, "c1")
    letter = await dead(engine, sql)
    await set_collection(engine, "c1")
    await drain(engine)
    now += 0.9
    await upkeep.tend()
    assert await states(sql) == {letter: "dead"}
    now += 0.1
    await upkeep.tend()
    assert await states(sql) == {letter: "superseded"}


async def test_letters_are_found_by_each_condition_and_by_all_together(
    engine: AsyncEngine, sql: asyncpg.Connection
) -> None:
    await set_collection(engine, "c1", project_id="p1")
    await set_collection(engine, "c2", project_id="p2")
    ids = [await dead(engine, sql, collection_id) for collection_id in ("c1", "c2", "c2", "nowhere")]
    malformed = await append_raw(sql, "c1", "collection.renamed")
    await drain(engine)
    await reopen(sql, *ids)
    async with engine.begin() as connection:
        await dead_letters.discard(connection, [ids[2]])

        async def found(**conditions: object) -> list[int]:
            selection = Selection(**conditions)  # type: ignore[arg-type]
            return [letter.id for letter in await dead_letters.find(connection, selection)]

        assert await found() == [ids[0], ids[1], ids[3], malformed]
        assert await found(state=None) == [*ids, malformed]
        assert await found(state="discarded") == [ids[2]]
        assert await found(collection_id="c2", state=None) == ids[1:3]
        assert await found(project_id="p2") == [ids[1]]
        assert await found(sqlstate="22007") == [ids[0], ids[1], ids[3]]
        assert await found(source="backfill") == []
        assert await found(source="api", collection_id="c1", sqlstate="22007") == [ids[0]]
        assert await found(ids=[ids[0], ids[2]]) == [ids[0]]
        letter = (await dead_letters.find(connection, Selection(ids=[ids[1]])))[0]
        assert await found(since=letter.died_at) == [ids[1], ids[3], malformed]
        assert await found(until=letter.died_at) == [ids[0]]
        page = await dead_letters.find(connection, Selection(), after_id=ids[0], most=2)
        assert [letter.id for letter in page] == [ids[1], ids[3]]
        assert await dead_letters.count(connection, Selection(state=None)) == {"dead": 4, "discarded": 1}
