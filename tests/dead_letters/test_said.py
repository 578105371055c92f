"""What PostgreSQL said is kept beside the letter, whole and bounded, and shown to operators alone."""

import asyncpg
import pytest
from sqlalchemy.ext.asyncio import AsyncEngine
from structlog.testing import capture_logs

from tests.dead_letters.test_command import Env, answered, command
from tests.dead_letters.test_replay import dead
from tests.draining import drain
from tests.legacy_rows import set_collection
from tests.worker.events import append_again, append_raw

SAID = "SELECT message, detail, hint FROM outbox_dead_letters WHERE id = $1"


async def refused(sql: asyncpg.Connection, engine: AsyncEngine, words: str) -> int:
    """Let a trigger refuse the collection in these words, as message, detail and hint; return the letter."""
    await sql.execute("CREATE TABLE words AS SELECT $1::text AS said", words)
    await sql.execute("""
        CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$
        DECLARE said text := (SELECT words.said FROM words);
        BEGIN
            RAISE EXCEPTION '%', said USING DETAIL = 'detail ' || said, HINT = 'hint ' || said;
        END $$;
        CREATE TRIGGER refuse BEFORE INSERT ON project_collections FOR EACH ROW EXECUTE FUNCTION refuse();
    """)
    letter = await set_collection(engine, "c1")
    await drain(engine)
    return letter


async def test_message_detail_and_hint_stand_with_the_letter_and_in_no_log_line(
    env: Env, engine: AsyncEngine, sql: asyncpg.Connection
) -> None:
    with capture_logs() as lines:
        letter = await refused(sql, engine, "boom: c1 is cursed")
    words = ("boom: c1 is cursed", "detail boom: c1 is cursed", "hint boom: c1 is cursed")
    assert tuple(await sql.fetchrow(SAID, letter)) == words
    assert "boom" not in f"{lines}"
    shown = await answered(env, "show", letter)
    assert (shown["message"], shown["detail"], shown["hint"]) == words
    assert (
        "  message     boom: c1 is cursed\n  detail      detail boom"
        in (await command(env, "show", letter)).stdout
    )
    for listing in (["list"], ["list", "--json"], ["list", "--groups"], ["list", "--groups", "--json"]):
        assert "boom" not in (await command(env, *listing)).stdout


@pytest.mark.parametrize("letters", ["x", "ü", "\N{GRINNING FACE}"])
async def test_words_beyond_two_thousand_characters_are_cut(
    letters: str, engine: AsyncEngine, sql: asyncpg.Connection
) -> None:
    letter = await refused(sql, engine, letters * 5_000)
    message, detail, hint = await sql.fetchrow(SAID, letter)
    assert (message, len(detail), len(hint)) == (letters * 2_000, 2_000, 2_000)


async def test_words_steer_no_terminal_and_pass_for_no_line_of_ours(
    env: Env, engine: AsyncEngine, sql: asyncpg.Connection
) -> None:
    letter = await refused(sql, engine, "first\nDead letter 7: replayed\x1b[31m\x07[bold]")
    shown = (await command(env, "show", letter)).stdout
    assert "\x1b" not in shown
    assert "\x07" not in shown
    assert "\n              Dead letter 7: replayed\N{REPLACEMENT CHARACTER}[31m" in shown
    assert [line for line in shown.splitlines() if line.startswith("Dead letter")] == [
        f"Dead letter {letter}: dead"
    ]


async def test_of_what_was_no_fault_of_postgresql_there_are_no_words(
    env: Env, engine: AsyncEngine, sql: asyncpg.Connection
) -> None:
    malformed = await append_raw(sql, "c1", "collection.renamed")
    await drain(engine)
    assert tuple(await sql.fetchrow(SAID, malformed)) == (None, None, None)
    shown = (await command(env, "show", malformed)).stdout
    assert "message" not in shown


async def test_an_event_that_dies_again_of_something_else_has_the_words_of_the_last_time(
    engine: AsyncEngine, sql: asyncpg.Connection
) -> None:
    event = await append_raw(sql, "c1", created_at="never")
    (row,) = await sql.fetch("SELECT * FROM outbox_events")
    await drain(engine)
    assert "never" in (await sql.fetchrow(SAID, event))["message"]
    await append_again(sql, event, dict(row))
    await sql.execute('UPDATE outbox_events SET payload = payload || \'{"created_at": "soon"}\'')
    await drain(engine)
    assert "soon" in (await sql.fetchrow(SAID, event))["message"]


async def test_the_release_before_leaves_words_empty_and_they_are_shown_as_none(
    env: Env, engine: AsyncEngine, sql: asyncpg.Connection
) -> None:
    letter = await dead(engine, sql, "c1")
    await sql.execute("UPDATE outbox_dead_letters SET message = NULL, detail = NULL, hint = NULL")
    assert (await answered(env, "show", letter))["message"] is None
