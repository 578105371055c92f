"""What a repair could not mend, and why: the reason is told, with the name of who is behind it."""

import asyncpg
import pytest
from sqlalchemy.ext.asyncio import AsyncEngine

from tests.audit.pairs import audited, put_legacy, put_pair
from tests.audit.test_command import run_audit
from tests.audit.test_repair import relaying
from tests.processes import environment, running_worker
from worker.audit import run
from worker.audit.comparison import Slice

TOUCH = """
    CREATE FUNCTION touch() RETURNS trigger LANGUAGE plpgsql AS
        $$ BEGIN NEW.updated_at := clock_timestamp(); RETURN NEW; END $$;
    CREATE TRIGGER "touch it" BEFORE INSERT OR UPDATE ON project_collections
        FOR EACH ROW EXECUTE FUNCTION touch();
"""
CHANGED = (
    "although their event was applied, and no repair can change that: in project_collections something else"
)
HARMLESS = """
    CREATE FUNCTION nothing() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RETURN OLD; END $$;
    CREATE TRIGGER on_deletion BEFORE DELETE ON project_collections FOR EACH ROW EXECUTE FUNCTION nothing();
    CREATE TRIGGER switched_off BEFORE UPDATE ON project_collections FOR EACH ROW EXECUTE FUNCTION nothing();
    ALTER TABLE project_collections DISABLE TRIGGER switched_off
"""


def meanwhile(monkeypatch: pytest.MonkeyPatch, sql: asyncpg.Connection, statement: str) -> None:
    """Let somebody do this after the events were applied and before the pairs are compared again."""
    right = vars(run)["verify"]

    async def verify(engine: AsyncEngine, run_id: int, scope: Slice) -> None:
        await sql.execute(statement)
        await right(engine, run_id, scope)

    monkeypatch.setattr(run, "verify", verify)


async def test_a_target_that_changes_a_column_by_itself_is_told_apart_and_its_trigger_named(
    database_url: str, redis_url: str, seeded: asyncpg.Connection
) -> None:
    env = environment(database_url, redis_url)
    await put_pair(seeded, "differs", research_context="other")
    await put_legacy(seeded, "missing")
    await seeded.execute(TOUCH + HARMLESS)
    async with running_worker(env):
        for differing in (2, 2):
            ended = await run_audit(env, "--json", "--repair")
            assert (ended.code, ended.result["verdict"], ended.result["repaired"]) == (1, "drift", 0)
            assert ended.result["error"] == (
                f'{differing} still differ {CHANGED} sets updated_at: its trigger "touch it".'
            )
        shown = await run_audit(env, "--repair")
    assert 'trigger "touch it"' in shown.stdout


async def test_where_no_trigger_does_it_another_program_is_suspected(
    engine: AsyncEngine, seeded: asyncpg.Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    await put_pair(seeded, "a", research_context="other")
    meanwhile(
        monkeypatch, seeded, "UPDATE project_collections SET research_context = 'again', created_at = NULL"
    )
    async with relaying(engine):
        one = await audited(engine, repair=True)
    assert "sets research_context, created_at: another program" in (one.error or "")


async def test_what_somebody_changed_in_legacy_meanwhile_is_not_laid_at_the_target_s_door(
    engine: AsyncEngine, seeded: asyncpg.Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    await put_pair(seeded, "a", research_context="other")
    meanwhile(monkeypatch, seeded, "UPDATE collections SET description = 'by hand'")
    async with relaying(engine):
        one = await audited(engine, repair=True)
    assert one.error == "1 were changed once more, by a writer that appends no event: audit again."
