"""A replay says what became of each letter, and only of letters that there are."""

import asyncio
from collections.abc import AsyncIterator, Sequence

import asyncpg
from sqlalchemy.ext.asyncio import AsyncEngine

from tests.dead_letters.test_command import BURY, REFUSE, Env, command
from tests.dead_letters.test_replay import dead, states
from tests.draining import drain
from tests.legacy_rows import set_collection
from tests.processes import environment, running_worker
from worker.dead_letters import closing, options
from worker.dead_letters.replays import replay_all, wait_for_replays

REASON = "raise, PL/pgSQL function refuse() line 3 at RAISE"
FIX_FIRST = "Fix what the reason names before the next replay."
READ_IDS = "SELECT id FROM outbox_dead_letters ORDER BY id"


async def buried(sql: asyncpg.Connection, number: int) -> list[int]:
    """Let events die as the target refuses them, each of a collection of its own; return the letters."""
    await sql.execute(REFUSE)
    await sql.execute(BURY, number)
    await sql.execute("UPDATE outbox_dead_letters SET sqlstate = 'P0001', error = $1", REASON)
    return [row["id"] for row in await sql.fetch(READ_IDS)]


async def test_each_letter_has_its_outcome_and_one_that_died_again_its_new_letter_and_reason(
    database_url: str, redis_url: str, sql: asyncpg.Connection
) -> None:
    env = environment(database_url, redis_url)
    applied, same, other = await buried(sql, 3)
    await sql.execute("UPDATE collections SET description = 'welcome' WHERE collection_id = 'c0000'")
    await sql.execute("UPDATE outbox_dead_letters SET error = 'something else' WHERE id = $1", other)
    async with running_worker(env):
        done = await command(env, "replay", applied, same, other)
        event_of = dict(await sql.fetch("SELECT id, replayed_as FROM outbox_dead_letters"))
        assert done.returncode == 1
        assert done.stdout.splitlines() == [
            f"Replayed 3 dead letters with 3 events. 2 died again. {FIX_FIRST}",
            f"{applied}: applied as event {event_of[applied]}",
            f"{same}: died again: letter {event_of[same]}, same reason",
            f"{other}: died again: letter {event_of[other]}, P0001: {REASON}",
        ]
        assert (await states(sql))[event_of[same]] == "dead"
        shown = (await command(env, "list")).stdout
        await sql.execute("DROP TRIGGER refuse ON project_collections")
        good = await command(env, "replay", event_of[same])
    assert f"died again after a replay of {same}" in " ".join(shown.split())
    assert good.returncode == 0
    assert good.stdout.splitlines()[0].endswith("The workers have settled all of them.")


async def test_without_a_worker_a_replay_ends_after_a_few_seconds_and_says_what_is_missing(
    env: Env, sql: asyncpg.Connection
) -> None:
    (letter,) = await buried(sql, 1)
    done = await command(env, "replay", letter)
    assert done.returncode == 1
    assert (
        "1 of them are still pending: is a worker running? start one with `python -m worker`." in done.stdout
    )
    (event_id,) = await sql.fetchrow("SELECT id FROM outbox_events")
    assert f"{letter}: pending as event {event_id}" in done.stdout


async def test_a_letter_that_is_not_there_is_named_and_nothing_else_is_said(
    env: Env, sql: asyncpg.Connection
) -> None:
    (letter,) = await buried(sql, 1)
    for verb in ("replay", "discard"):
        missing = await command(env, verb, 999)
        assert (missing.returncode, missing.stdout) == (1, "")
        said = [line for line in missing.stderr.splitlines() if not line.startswith("{")]
        assert said == ["There is no dead letter 999."]
    some = await command(env, "discard", letter, 999)
    assert (some.returncode, some.stdout.strip()) == (1, "Discarded 1 dead letter.")
    assert "There is no dead letter 999." in some.stderr


async def test_a_replay_of_what_has_gone_since_needed_nothing(
    engine: AsyncEngine, sql: asyncpg.Connection
) -> None:
    await set_collection(engine, "c1")
    letter = await dead(engine, sql, "c1")
    replays = await replay_all(engine, one_page(letter), None)
    await sql.execute("DELETE FROM collections")
    await drain(engine)
    await wait_for_replays(engine, replays, interrupted=asyncio.Event())
    assert replays.is_complete
    assert replays.sentences()[1:] == [f"{letter}: not needed: its collection has gone or moved since"]


async def test_a_replay_that_a_newer_write_overtook_was_applied_with_it(
    engine: AsyncEngine, sql: asyncpg.Connection
) -> None:
    await set_collection(engine, "c1")
    letter = await dead(engine, sql, "c1")
    replays = await replay_all(engine, one_page(letter), None)
    await set_collection(engine, "c1", "newer")
    await drain(engine)
    await wait_for_replays(engine, replays, interrupted=asyncio.Event())
    assert [outcome.outcome for outcome in replays.outcomes or ()] == ["applied"]


async def one_page(*ids: int) -> AsyncIterator[Sequence[int]]:
    yield ids


async def test_a_replay_of_all_does_not_replay_what_dies_of_it(
    engine: AsyncEngine, sql: asyncpg.Connection
) -> None:
    ids = await buried(sql, 501)
    arguments = options.parse(["replay", "--all", "--yes"])

    async def pages_while_workers_run() -> AsyncIterator[Sequence[int]]:
        async for page in closing.pages(engine, arguments, asyncio.Event()):
            yield page
            await drain(engine)

    replays = await replay_all(engine, pages_while_workers_run(), None)
    assert sorted(replays.events) == ids
    assert sorted((await states(sql)).values()) == ["dead"] * 501 + ["replayed"] * 501
