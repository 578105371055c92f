"""Pairs of both tables, set by hand: what the audit must find, and what it must leave alone."""

import asyncio
from datetime import UTC, datetime

import asyncpg
from sqlalchemy.ext.asyncio import AsyncEngine

from shared.audit_runs import AuditOptions, AuditRun
from tests.processes import HANG_SECONDS
from worker.audit.run import audit

AUDIT = "^collection-sync audit$"  # what the command's sessions are called

CREATED = datetime(2024, 2, 29, 23, 59, 59, 999_999, UTC)
UPDATED = datetime(2024, 3, 1, 0, 0, 0, 1, UTC)

INSERT_LEGACY = """
    INSERT INTO collections (collection_id, project_id, collection_name, created_by, is_active, description,
        created_at, updated_at)
    VALUES ($1, $2, 'name', 'owner', $3, $4, $5, $6)
"""
INSERT_TARGET = """
    INSERT INTO project_collections (collection_id, project_id, research_context, created_at, updated_at)
    VALUES ($1, $2, $3, $4, $5)
"""
FINDINGS = """
    SELECT collection_id, kind FROM audit_findings
    WHERE audit_run_id = (SELECT max(id) FROM audit_runs)
"""
SEED_SYNCED = """
    INSERT INTO collections (collection_id, project_id, collection_name, created_by, is_active, description)
    SELECT 'c-' || n, 'p' || 1 + n % 3, 'name', 'owner', n % 10 > 0, 'text ' || n
    FROM generate_series(1, $1) n
"""
SYNC = """
    INSERT INTO project_collections (project_id, collection_id, research_context, created_at, updated_at)
    SELECT project_id, collection_id, description, created_at, updated_at FROM collections WHERE is_active
    ON CONFLICT DO NOTHING
"""


async def put_legacy(connection: asyncpg.Connection, collection_id: str, **values: object) -> None:
    """Insert a collection: project_id, is_active, description, created_at, updated_at."""
    row: dict[str, object] = {"project_id": "p1", "is_active": True, "description": "text"}
    row |= {"created_at": CREATED, "updated_at": UPDATED} | values
    await connection.execute(INSERT_LEGACY, collection_id, *row.values())


async def put_target(connection: asyncpg.Connection, collection_id: str, **values: object) -> None:
    """Insert a target row: project_id, research_context, created_at, updated_at."""
    row = {
        "project_id": "p1",
        "research_context": "text",
        "created_at": CREATED,
        "updated_at": UPDATED,
    } | values
    await connection.execute(INSERT_TARGET, collection_id, *row.values())


async def put_pair(connection: asyncpg.Connection, collection_id: str, **values: object) -> None:
    """Insert a collection and its home row in sync, and then change columns of the target row."""
    await put_legacy(connection, collection_id)
    await put_target(connection, collection_id, **values)


async def put_synced(connection: asyncpg.Connection, count: int) -> None:
    """Insert `count` collections, a tenth of them inactive, and their home rows."""
    await connection.execute(SEED_SYNCED, count)
    await connection.execute(SYNC)


async def audited(
    engine: AsyncEngine,
    *,
    slices: int | None = None,
    connections: int = 1,
    project_id: str | None = None,
    repair: bool = False,
    repair_dead: bool = False,
    patience_seconds: float = HANG_SECONDS,
    requested_by: str = "command",
) -> AuditRun:
    """Run one audit as the command does."""
    return await audit(
        engine,
        AuditOptions(project_id=project_id, repair=repair),
        requested_by=requested_by,
        repair_dead=repair_dead,
        interrupted=asyncio.Event(),
        slices=slices,
        connections=connections,
        patience_seconds=patience_seconds,
    )


async def found(connection: asyncpg.Connection) -> dict[str, str]:
    """Return the newest run's findings: kind by collection."""
    return {row["collection_id"]: row["kind"] for row in await connection.fetch(FINDINGS)}
