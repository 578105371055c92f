"""Letters that died alike are one group, and are replayed and discarded as one."""

import asyncpg
import pytest
from sqlalchemy.ext.asyncio import AsyncEngine

from tests.dead_letters.test_command import Env, answered, command
from tests.dead_letters.test_replay import dead, replayed, states
from tests.draining import drain
from tests.legacy_rows import set_collection
from tests.worker.events import append_raw


@pytest.fixture
async def letters(engine: AsyncEngine, sql: asyncpg.Connection) -> list[int]:
    """Three that died alike, one of them after a replay; and two that each died of something else."""
    for name in ("c1", "c2", "c3", "c4"):
        await set_collection(engine, name)
    first = await dead(engine, sql, "c1")
    (again,) = set((await replayed(engine, first)).replayed.values())
    await sql.execute('UPDATE outbox_events SET payload = payload || \'{"created_at": "never"}\'')
    await drain(engine)
    alike = [again, await dead(engine, sql, "c2"), await dead(engine, sql, "c3")]
    creation = await append_raw(sql, "c4", "collection.created", created_at="never")
    malformed = await append_raw(sql, "c5", "collection.renamed")
    await drain(engine)
    return [*alike, creation, malformed]


async def test_those_of_one_error_reason_and_type_are_a_group(env: Env, letters: list[int]) -> None:
    found = await answered(env, "list", "--groups")
    assert found["total"] == sum(group["letters"] for group in found["groups"])
    first = found["groups"][0]
    assert (first["like"], first["letters"], first["died_again"]) == (letters[0], 3, 1)
    assert (first["sqlstate"], first["event_type"]) == ("22007", "collection.updated")
    assert first["oldest_at"] < first["newest_at"]
    malformed = found["groups"][-1]
    assert (malformed["like"], malformed["sqlstate"], malformed["letters"]) == (letters[-1], None, 1)
    shown = (await command(env, "list", "--groups")).stdout
    assert "3 letters of collection.updated, 1 of them after a replay; died " in shown
    assert f"python -m worker.dead_letters replay --like {letters[0]}" in shown
    assert "in 1 group, the largest shown" in (
        await command(env, "list", "--groups", "--limit", 1)
    ).stdout  # fmt: skip


async def test_a_group_is_listed_replayed_and_discarded_by_any_of_its_letters(
    env: Env, letters: list[int], sql: asyncpg.Connection
) -> None:
    alike, others = letters[:3], letters[3:]
    assert (await answered(env, "list", "--like", alike[1]))["total"] == 3
    refused = await command(env, "replay", "--like", alike[1])
    assert refused.returncode == 1
    assert "This would replay 3 dead letters. Pass --yes to do it." in refused.stderr
    done = await answered(env, "replay", "--like", alike[1], "--collection", "c2", "--yes", "--no-wait")
    assert done["replayed"] == 1
    done = await answered(env, "replay", "--like", alike[1], "--yes", "--no-wait")
    assert done["replayed"] == 2
    for letter in others:
        assert (await answered(env, "discard", "--like", letter, "--yes"))["discarded"] == 1
    found = await states(sql)
    assert {found[letter] for letter in alike} == {"replayed"}
    assert {found[letter] for letter in others} == {"discarded"}


@pytest.mark.usefixtures("letters")
async def test_the_group_of_a_letter_that_is_not_there_is_refused(env: Env, sql: asyncpg.Connection) -> None:
    before = await states(sql)
    for verb in ("replay", "discard"):
        refused = await command(env, verb, "--like", 999, "--yes")
        assert (refused.returncode, refused.stdout) == (1, "")
        assert "There is no dead letter 999." in refused.stderr
    assert await states(sql) == before
