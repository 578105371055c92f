"""Why an event died or became obsolete is said without a value that a user wrote."""

import json

import asyncpg
import pytest
from sqlalchemy.ext.asyncio import AsyncEngine
from structlog.testing import capture_logs

from tests.draining import drain
from tests.legacy_rows import seed

CANARY = "canary-payload-6e"
REFUSALS = {
    "22007": "SELECT",  # the payload itself is no timestamp
    "23514": "ALTER TABLE project_collections ADD CONSTRAINT never CHECK (research_context NOT LIKE '%-6e')",
    "P0001": """
        CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
            RAISE EXCEPTION 'not %', NEW.research_context USING DETAIL = NEW, HINT = NEW.research_context;
        END $$;
        CREATE TRIGGER refuse BEFORE INSERT ON project_collections FOR EACH ROW EXECUTE FUNCTION refuse();
    """,
    "23503": "DELETE FROM collections",
}
APPEND = """
    INSERT INTO outbox_events (aggregate_id, event_type, source, payload)
    VALUES ('one', 'collection.updated', 'api', $1)
"""


def payload_for(code: str) -> str:
    created_at = CANARY if code == "22007" else None
    project_id = CANARY if code == "23503" else "p1"
    values = {"project_id": project_id, "research_context": CANARY, "created_at": created_at}
    return json.dumps(values | {"updated_at": None})


@pytest.mark.parametrize("code", REFUSALS)
async def test_the_reason_of_an_outcome_quotes_no_value(
    code: str, engine: AsyncEngine, sql: asyncpg.Connection
) -> None:
    await seed(sql)
    await sql.execute("""
        INSERT INTO collections (collection_id, project_id, collection_name, created_by, is_active)
        VALUES ('one', 'p1', 'name', 'owner', true)
    """)
    await sql.execute(REFUSALS[code])
    await sql.execute(APPEND, payload_for(code))
    with capture_logs() as logs:
        await drain(engine)
    [settled] = [line for line in logs if line["event"] == "event_settled"]
    assert (settled["outcome"], settled["sqlstate"]) == ("obsolete" if code == "23503" else "dead", code)
    reasons = await sql.fetch("SELECT sqlstate, error FROM outbox_dead_letters")
    assert [row["sqlstate"] for row in reasons] == ([] if code == "23503" else [code])
    assert CANARY not in settled["error"] + str(reasons)
    assert settled["error"]
