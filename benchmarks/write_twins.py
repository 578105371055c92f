"""The API without this system, and with what it replaces: `uvicorn benchmarks.write_twins:legacy_only`.

Both twins are the product but for the event: where it appends one, they do nothing, or write the target's row
in the same statement, which is the fastest way there is to write both. Neither rings the doorbell.
"""

from fastapi import FastAPI

import api.main
from api import write_statement
from shared.events import EventType
from shared.redis.doorbell import Doorbell

NOTHING = "appended AS (SELECT 0 AS event_id, $5::text, $6::text FROM written)"
TARGET_ROW = f"""shown AS (
        INSERT INTO project_collections (project_id, collection_id, research_context, created_at, updated_at)
        SELECT project_id, collection_id, description, created_at, updated_at
        FROM written
        WHERE $5 <> '{EventType.DELETED}'
        ON CONFLICT (project_id, collection_id) DO UPDATE
        SET research_context = excluded.research_context, updated_at = excluded.updated_at
    ), hidden AS (
        DELETE FROM project_collections AS target
        USING written
        WHERE $5 = '{EventType.DELETED}'
            AND target.project_id = written.project_id AND target.collection_id = written.collection_id
    ), {NOTHING}"""  # noqa: S608 - constants
INSTEAD = {"legacy_only": NOTHING, "dual_write": TARGET_ROW}


def __getattr__(name: str) -> FastAPI:
    """Make the twin of this name when a server asks for it; a process can only be one of them."""
    if name not in INSTEAD:
        raise AttributeError(name)
    for statement in ("CREATE", "CHANGE"):
        with_event = getattr(write_statement, statement)
        setattr(write_statement, statement, with_event.replace(write_statement.APPENDED, INSTEAD[name]))
    Doorbell.press = lambda self: None  # type: ignore[method-assign] # noqa: ARG005 - as it is called
    app: FastAPI = api.main.app
    return app
