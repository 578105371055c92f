"""A writer needs no right on our tables, and gets none by it."""

import asyncio

import asyncpg
import pytest
from sqlalchemy.ext.asyncio import AsyncEngine

from shared.capture import FUNCTION
from tests.capture.conftest import Capture
from tests.capture.writers import insert
from tests.draining import drain
from tests.drift import drift
from tests.security.as_role import connected, engine_of
from tests.security.conftest import urls as urls  # noqa: PLC0414 - a fixture of ours, too
from worker.capture.change import NOT_THE_OWNER, change
from worker.capture.counting import CaptureUpkeep
from worker.command_line.run import CommandError
from worker.preflight.check import Severity
from worker.preflight.checks.capture import capture as preflight

MONOLITH = """
    CREATE ROLE monolith_of_capture LOGIN;
    GRANT SELECT, INSERT, UPDATE, DELETE ON collections, users, projects TO monolith_of_capture
"""
DROP = "DROP OWNED BY monolith_of_capture; DROP ROLE monolith_of_capture"
CHANGE = "UPDATE public.collections SET description = 'by the monolith' WHERE collection_id = 'c1'"
# Objects of the writer's own, named like what the function reads and calls.
DECOYS = """
    CREATE TEMPORARY TABLE capture_settings (singleton boolean, mode text);
    INSERT INTO capture_settings VALUES (true, 'count');
    CREATE TEMPORARY TABLE collections (collection_id text, project_id text, is_active boolean);
    CREATE TEMPORARY TABLE outbox_events (aggregate_id text, event_type text, payload jsonb, id bigint)
"""


@pytest.fixture
async def monolith(sql: asyncpg.Connection, database_url: str) -> str:
    """A writer of `collections` that may do nothing with our tables; return how it becomes one."""
    del database_url
    await sql.execute(MONOLITH)
    return "SET SESSION AUTHORIZATION monolith_of_capture"


@pytest.mark.parametrize("decoys", ["SELECT 1", DECOYS], ids=["as it is", "with decoys in its search path"])
async def test_a_writer_without_any_right_on_our_tables_is_captured_under_its_own_name(
    decoys: str, monolith: str, sql: asyncpg.Connection, capture: Capture, engine: AsyncEngine
) -> None:
    await sql.execute(insert("c1"))
    await capture("append")
    refused: object = None
    try:
        await sql.execute(monolith)
        await sql.execute(decoys)
        await sql.execute(CHANGE)
    except asyncpg.InsufficientPrivilegeError as error:
        refused = error
    with pytest.raises(asyncpg.InsufficientPrivilegeError):
        await sql.execute("SELECT * FROM public.outbox_events")
    await sql.execute("RESET SESSION AUTHORIZATION; DISCARD TEMP")
    await sql.execute(DROP)
    assert refused is None
    found = await sql.fetchrow("SELECT role, operation FROM captured_writes")
    assert found is not None
    assert tuple(found) == ("monolith_of_capture", "update")
    await drain(engine)
    assert await drift(sql) == []


async def test_nobody_hangs_the_function_on_a_table_of_their_own_to_forge_events(
    monolith: str, sql: asyncpg.Connection, capture: Capture
) -> None:
    await capture("append")
    assert not await sql.fetchval(
        "SELECT has_function_privilege('monolith_of_capture', $1 || '()', 'EXECUTE')", FUNCTION
    )
    await sql.execute(monolith)
    await sql.execute("CREATE TEMPORARY TABLE mine (LIKE public.collections)")
    with pytest.raises(asyncpg.InsufficientPrivilegeError):
        await sql.execute(
            f"CREATE TRIGGER forged AFTER INSERT ON mine FOR EACH ROW EXECUTE FUNCTION public.{FUNCTION}()"
        )
    await sql.execute("RESET SESSION AUTHORIZATION; DISCARD TEMP")
    await sql.execute(DROP)


async def test_a_function_whose_owner_may_not_append_is_a_stop(
    monolith: str, sql: asyncpg.Connection, capture: Capture
) -> None:
    del monolith
    await capture("append")
    await sql.execute(f"ALTER FUNCTION {FUNCTION}() OWNER TO monolith_of_capture")
    [objection] = (await preflight(sql)).objections
    assert objection.state is Severity.STOP
    assert "monolith_of_capture, who may not append" in objection.sentence
    await capture(None)
    await sql.execute(DROP)


async def test_who_owns_nothing_installs_nothing(urls: dict[str, str], sql: asyncpg.Connection) -> None:
    async with engine_of(urls["operator"]) as as_operator:
        with pytest.raises(CommandError) as refused:
            await change(as_operator, "append", interrupted=_never(), watch=lambda _: None)
    assert str(refused.value) == NOT_THE_OWNER
    assert await sql.fetchval("SELECT count(*) FROM capture_settings") == 0


async def test_the_worker_s_role_counts_and_the_operator_s_and_the_reader_s_look(
    urls: dict[str, str], sql: asyncpg.Connection, capture: Capture
) -> None:
    await capture("count")
    await sql.execute(insert("c1"))
    async with engine_of(urls["worker"]) as as_worker:
        await CaptureUpkeep(as_worker).tend()
    for role in ("operator", "reader", "api"):
        async with connected(urls[role]) as as_role:
            assert await as_role.fetchval("SELECT sum(writes) FROM captured_counts") == 1
            for statement in (
                "UPDATE capture_settings SET mode = 'refuse'",
                "DELETE FROM captured_counts",
                "DELETE FROM captured_writes",
            ):
                with pytest.raises(asyncpg.InsufficientPrivilegeError):
                    await as_role.execute(statement)


def _never() -> asyncio.Event:
    return asyncio.Event()
