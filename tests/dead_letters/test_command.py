"""`python -m worker.dead_letters` as an operator types it."""

import asyncio
import json
import os
import pty
import subprocess
import sys
from typing import Any

import asyncpg
import pytest
from sqlalchemy.ext.asyncio import AsyncEngine

from tests.dead_letters.test_replay import dead, states
from tests.draining import drain
from tests.drift import drift
from tests.forked import ROOT, run
from tests.legacy_rows import set_collection
from tests.log_lines import hold_printed
from tests.processes import HANG_SECONDS, environment, running_worker
from tests.worker.events import append_raw

Env = dict[str, str]

# Collections whose events have died, each with a letter of its own.
BURY = """
    WITH written AS (
        INSERT INTO collections
            (collection_id, project_id, collection_name, description, created_by, is_active)
        SELECT 'c' || lpad(number::text, 4, '0'), 'p1', 'name', 'refused', 'owner', true
        FROM generate_series(0, $1::integer - 1) AS number
        RETURNING *
    )
    INSERT INTO outbox_dead_letters (id, aggregate_id, event_type, source, payload, created_at, error)
    SELECT nextval(pg_get_serial_sequence('outbox_events', 'id')), collection_id, 'collection.updated', 'api',
        jsonb_build_object('project_id', project_id, 'research_context', description,
            'created_at', created_at, 'updated_at', updated_at), clock_timestamp(), 'no'
    FROM written ORDER BY collection_id
"""


REFUSE = """
    CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$
    BEGIN
        IF NEW.research_context = 'refused' THEN RAISE EXCEPTION 'no'; END IF;
        RETURN NEW;
    END $$;
    CREATE TRIGGER refuse BEFORE INSERT ON project_collections FOR EACH ROW EXECUTE FUNCTION refuse();
"""


async def command(env: Env, *arguments: object) -> subprocess.CompletedProcess[str]:
    typed = ["-m", "worker.dead_letters", *map(str, arguments)]
    done = await asyncio.to_thread(run, typed, env, timeout=HANG_SECONDS)
    hold_printed(done.stderr)
    return done


async def answered(env: Env, *arguments: object, status: int = 0) -> dict[str, Any]:
    """Run with --json; stdout must hold exactly the one line."""
    done = await command(env, *arguments, "--json")
    assert done.returncode == status, done.stderr
    (line,) = done.stdout.splitlines()
    answer: dict[str, Any] = json.loads(line)
    return answer


@pytest.fixture
async def letter(engine: AsyncEngine, sql: asyncpg.Connection) -> int:
    await set_collection(engine, "c1", "what it is now")
    return await dead(engine, sql)


async def test_list_shows_dead_letters_with_their_reasons(
    env: Env, letter: int, engine: AsyncEngine, sql: asyncpg.Connection
) -> None:
    shown = await command(env, "list")
    assert shown.returncode == 0
    for words in (str(letter), "c1", "updated", "api", "22007", "1 dead letter."):
        assert words in shown.stdout
    await dead(engine, sql, "c2")
    listed = await answered(env, "list", "--limit", 1)
    assert (listed["total"], listed["counts"]) == (2, {"dead": 2})
    assert [(row["id"], row["collection_id"], row["state"]) for row in listed["dead_letters"]] == [
        (letter, "c1", "dead")
    ]
    assert "the first 1 shown" in (await command(env, "list", "--limit", 1)).stdout
    assert "0 superseded letters." in (await command(env, "list", "--state", "superseded")).stdout
    assert (await answered(env, "list", "--project", "p1"))["total"] == 1
    assert (await answered(env, "list", "--since", "2999-01-01"))["total"] == 0


async def test_show_tells_what_the_event_held_and_what_a_replay_would_append(
    env: Env, letter: int, engine: AsyncEngine, sql: asyncpg.Connection
) -> None:
    shown = await answered(env, "show", letter)
    assert shown["payload"]["created_at"] == "never"
    assert shown["present_state"]["research_context"] == "what it is now"
    text = (await command(env, "show", letter)).stdout
    assert '"never"' in text
    assert "A replay would append" in text
    homeless = await dead(engine, sql, "nowhere")
    assert "there is nothing to replay" in (await command(env, "show", homeless)).stdout
    assert (await command(env, "discard", homeless)).returncode == 0
    closed = (await command(env, "show", homeless)).stdout
    assert f"Dead letter {homeless}: discarded" in closed
    assert "replay" not in closed
    missing = await command(env, "show", 999)
    assert (missing.returncode, missing.stderr.strip()) == (1, "There is no dead letter 999.")


async def test_while_reads_are_moved_a_discard_says_what_lists_show_from_then_on(
    env: Env, letter: int, engine: AsyncEngine, sql: asyncpg.Connection
) -> None:
    others = [await dead(engine, sql, name) for name in ("c2", "c3")]
    said = []
    for phase, number in (("shadow_reads", others[0]), ("reads_moved", others[1])):
        await sql.execute("UPDATE migration_phase SET phase = $1", phase)
        done = await command(env, "discard", number)
        assert (done.returncode, done.stdout.strip()) == (0, "Discarded 1 dead letter.")
        said.append("replay instead" in done.stderr)
    assert said == [False, True]
    refused = await command(env, "discard", "--all")
    assert refused.returncode == 1
    assert refused.stderr.index("replay instead") < refused.stderr.index("This would discard 1 dead letter.")
    assert await states(sql) == {letter: "dead", others[0]: "discarded", others[1]: "discarded"}


async def test_what_python_cannot_hold_is_shown_as_it_is(
    env: Env, engine: AsyncEngine, sql: asyncpg.Connection
) -> None:
    await set_collection(engine, "c1", "what it is now")
    await sql.execute("UPDATE collections SET created_at = 'infinity', updated_at = '10000-01-01Z'")
    digits = "1" * 5_000
    event_id = await append_raw(sql, "c1", created_at="never")
    await sql.execute("UPDATE outbox_events SET payload = payload || $1::jsonb", f'{{"more": {digits}}}')
    await drain(engine)
    shown = await answered(env, "show", event_id)
    assert shown["payload"]["more"] == digits
    present = shown["present_state"]
    assert (present["created_at"], present["updated_at"]) == ("infinity", "10000-01-01T00:00:00+00:00")
    assert digits in (await command(env, "show", event_id)).stdout
    assert (await answered(env, "replay", "--no-wait", event_id))["replayed"] == 1


async def test_a_replay_without_a_worker_is_done_and_says_who_goes_on(
    env: Env, letter: int, engine: AsyncEngine, sql: asyncpg.Connection
) -> None:
    done = await command(env, "replay", "--no-wait", letter)
    assert done.returncode == 0
    assert "Replayed 1 dead letter with 1 event. The workers apply them" in done.stdout
    await drain(engine)
    assert await drift(sql) == []
    closed = await command(env, "replay", letter)
    assert (closed.returncode, closed.stdout) == (1, "")
    assert f"Dead letter {letter} is closed: replayed as" in closed.stderr
    again = await answered(env, "replay", letter, status=1)
    assert again == {
        "replayed": 0, "events": 0, "no_collection": [], "not_dead": [letter], "pending": None,
        "dead_again": None,
    }  # fmt: skip


async def test_all_are_replayed_waited_for_and_those_that_die_again_are_named(
    database_url: str, redis_url: str, sql: asyncpg.Connection
) -> None:
    env = environment(database_url, redis_url)
    await sql.execute(REFUSE)
    await sql.execute(BURY, 1_100)  # more than two transactions take
    await sql.execute("UPDATE collections SET description = 'welcome' WHERE collection_id <> 'c0500'")
    async with running_worker(env):
        answer = await answered(env, "replay", "--all", "--yes", "--wait", status=1)
    assert (answer["replayed"], answer["events"], answer["pending"]) == (1_100, 1_100, 0)
    assert len(answer["dead_again"]) == 1
    assert await drift(sql) == ["c0500"]
    found = await states(sql)
    assert [found[event_id] for event_id in answer["dead_again"]] == ["dead"]


async def test_letters_of_collections_that_do_not_exist_are_named_and_the_others_replayed(
    env: Env, letter: int, engine: AsyncEngine, sql: asyncpg.Connection
) -> None:
    homeless = await dead(engine, sql, "nowhere")
    done = await command(env, "replay", "--all", "--yes")
    assert done.returncode == 1
    assert f"their collections do not exist: {homeless}." in done.stderr
    assert await states(sql) == {letter: "replayed", homeless: "dead"}
    assert (await answered(env, "discard", homeless)) == {"discarded": 1, "not_dead": []}


async def test_discard_takes_filters_and_appends_nothing(
    env: Env, letter: int, engine: AsyncEngine, sql: asyncpg.Connection
) -> None:
    malformed = await append_raw(sql, "c2", "collection.renamed")
    await drain(engine)
    done = await command(env, "discard", "--all", "--sqlstate", "22007", "--yes")
    assert (done.returncode, done.stdout.strip()) == (0, "Discarded 1 dead letter.")
    assert await states(sql) == {letter: "discarded", malformed: "dead"}
    assert await sql.fetchval("SELECT count(*) FROM outbox_events") == 0


async def test_all_is_not_done_unasked_where_nobody_can_be_asked(
    env: Env, letter: int, sql: asyncpg.Connection
) -> None:
    for verb in ("replay", "discard"):
        refused = await command(env, verb, "--all")
        assert refused.returncode == 1
        assert f"This would {verb} 1 dead letter. Pass --yes to do it." in refused.stderr
    assert await states(sql) == {letter: "dead"}


@pytest.mark.parametrize(("verb", "said"), [("replay", "Replayed 0"), ("discard", "Discarded 0")])
async def test_all_of_none_is_done_without_a_question(verb: str, said: str, env: Env) -> None:
    done = await command(env, verb, "--all")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith(f"{said} dead letters")


@pytest.mark.parametrize(("typed", "state"), [("y\n", "discarded"), ("n\n", "dead"), ("\x03", "dead")])
async def test_at_a_terminal_it_asks_before_all(
    typed: str, state: str, env: Env, letter: int, sql: asyncpg.Connection
) -> None:
    ours, theirs = pty.openpty()
    asked = subprocess.Popen(  # noqa: ASYNC220 - to start it takes a moment
        [sys.executable, "-c", PREFACE, "discard", "--all"],
        cwd=ROOT, env=env, stdin=theirs, stdout=theirs, stderr=theirs, start_new_session=True,
    )  # fmt: skip
    os.close(theirs)
    shown = ""
    while "[y/N]" not in shown:
        shown += (await asyncio.to_thread(os.read, ours, 1000)).decode()
    assert "Discard 1 dead letter?" in shown
    os.write(ours, typed.encode())
    assert await asyncio.to_thread(asked.wait, HANG_SECONDS) == (0 if state == "discarded" else 1)
    os.close(ours)
    assert await states(sql) == {letter: state}


# Ctrl-C is sent to the terminal's own session, which must be the command's.
PREFACE = """
import fcntl, runpy, termios
fcntl.ioctl(0, termios.TIOCSCTTY, 0)
runpy.run_module("worker.dead_letters", run_name="__main__")
"""


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        ["bury"],
        ["show"],
        ["show", "x"],
        ["show", "0"],
        ["replay"],
        ["replay", "1", "--all"],
        ["replay", "1", "--source", "api"],
        ["replay", "--source", "api"],
        ["discard", "1", "--yes"],
        ["discard", "--all", "--wait"],
        ["discard", "1", "--no-wait"],
        ["replay", "1", "--wait", "--no-wait"],
        ["replay", "1", "--like", "2"],
        ["replay", "--like", "x"],
        ["list", "--groups", "--like", "0"],
        ["list", "--state", "lost"],
        ["list", "--since", "yesterday"],
        ["list", "--limit", "0"],
    ],
    ids=" ".join,
)
async def test_wrong_usage_is_refused(arguments: list[str]) -> None:
    assert (await command({"PATH": os.environ["PATH"]}, *arguments)).returncode == 2


async def test_help_teaches_without_an_environment() -> None:
    for arguments in ([], ["list"], ["show"], ["replay"], ["discard"]):
        shown = await command({"PATH": os.environ["PATH"]}, *arguments, "--help")
        assert shown.returncode == 0
    shown = await command({"PATH": os.environ["PATH"]}, "--help")
    assert "DATABASE_URL" in shown.stdout
    assert "It can never overwrite anything newer" in " ".join(shown.stdout.split())


async def test_a_database_without_our_tables_gets_advice(env: Env, sql: asyncpg.Connection) -> None:
    await sql.execute("ALTER TABLE outbox_dead_letters RENAME TO away")
    refused = await command(env, "list")
    assert refused.returncode == 1
    assert "alembic upgrade head" in refused.stderr
    assert "Traceback" not in refused.stderr
