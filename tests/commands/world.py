"""Databases as commands may find them: one full of hostile texts, and others that cannot be used."""

import asyncio
import contextlib
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import asyncpg

from tests.dashboard.loglines import line, text
from tests.databases import MIGRATED, Databases
from tests.legacy_rows import SEED

# What rich would take for markup, ends and begins lines, steers a terminal, turns the direction of writing.
HOSTILE = "日本[/b][bold]\x1b[31m\x9b2J\x07\r\n\u2028In sync\u202e\x7f"
LETTER = 424_242
NOBODY = "nobody_at_all"
EMPTY = "commands_not_migrated"

# One statement a thing that some command shows.
FILL = """
    INSERT INTO projects (project_id, project_name, owner_user_id) VALUES ($1, $1, 'owner');
    INSERT INTO collections (collection_id, project_id, collection_name, description, created_by, is_active)
        VALUES ($1, $1, $1, $1, 'owner', true), ('gone' || $1, 'p1', $1, NULL, 'owner', false);
    INSERT INTO project_collections (project_id, collection_id, research_context)
        VALUES ('p1', 'gone' || $1, $1), ('p2', $1, $1);
    UPDATE project_collections SET tags = to_json(ARRAY[$1]) WHERE project_id = 'p2';
    INSERT INTO outbox_dead_letters
        (id, aggregate_id, event_type, source, payload, created_at, error, sqlstate, message, detail, hint)
        VALUES (424242, $1, 'collection.' || $1, $1, jsonb_build_object($1, $1), clock_timestamp(), $1, $1,
            $1, $1, $1);
    INSERT INTO backfill_runs
        (status, in_worker, project_id, max_pending, chunk_size, planned, throttled_by, driver)
        VALUES ('paused', false, $1, 1, 1, 0, $1, $1);
    INSERT INTO applied_versions (collection_id, version, project_id, is_deleted, found_row)
        VALUES ($1, 1, 'p1', false, false);
    INSERT INTO worker_processes (name, ended_at) VALUES ($1, clock_timestamp());
    SELECT setval('outbox_events_id_seq', 1000000);
"""


@dataclass(frozen=True, slots=True)
class World:
    """Where commands are started: the way to each database, by the condition that it is for."""

    urls: Mapping[str, str]
    log: Path


@contextlib.contextmanager
def world(databases: Databases, directory: Path) -> Iterator[World]:
    with databases.clone(MIGRATED) as hostile, databases.clone(MIGRATED) as read_only:
        asyncio.run(fill(hostile))
        empty = databases.create_empty(EMPTY)
        name = read_only.rpartition("/")[2]
        databases.execute(f'ALTER DATABASE "{name}" SET default_transaction_read_only = on')
        databases.execute(f"CREATE ROLE {NOBODY} LOGIN PASSWORD '{NOBODY}'")
        urls = {
            "well": hostile,
            "away": re.sub(r":\d+/", ":1/", hostile),
            "read-only": read_only,
            "wrong password": re.sub(r":[^:@/]+@", ":wrong@", hostile),
            "not migrated": empty,
            "no rights": re.sub(r"//[^@]+@", f"//{NOBODY}:{NOBODY}@", hostile),
            "no such database": f"{hostile}_not",
        }
        try:
            yield World(urls, a_log(directory))
        finally:
            databases.execute(f"DROP DATABASE {EMPTY} WITH (FORCE)")
            databases.execute(f"DROP ROLE {NOBODY}")


async def fill(url: str) -> None:
    connection = await asyncpg.connect(url)
    try:
        await connection.execute(SEED)
        for statement in filter(str.strip, FILL.split(";")):
            texts = [HOSTILE] if "$1" in statement else []
            await connection.execute(statement.replace("$1", "$1::text"), *texts)
        await connection.execute(f'CREATE TABLE "t{HOSTILE}" (id integer REFERENCES project_collections)')
    finally:
        await connection.close()


def a_log(directory: Path) -> Path:
    path = directory / "worker.log"
    path.write_bytes(
        text(
            [
                line("audit_finished", 1_767_000_000, status="failed", verdict=HOSTILE, error=HOSTILE),
                line("worker_heartbeat", 1_767_000_000, worker=HOSTILE),
                HOSTILE,
            ]
        )
    )
    Path(f"{path}.{HOSTILE.replace('/', '')}").write_bytes(b"")
    return path
