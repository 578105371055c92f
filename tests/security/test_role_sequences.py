"""What each role learns of sequences, and what it may insert into the tables of runs."""

import asyncpg
import pytest

from shared.postgres.database import driver_connection
from shared.postgres.pooler import UnfitServerError
from tests.security.as_role import connected, engine_of
from tests.shared.test_sequences import AUDIT, BACKFILL, EVENT, PROCESS

DRAW = {"outbox_events": EVENT, "backfill_runs": BACKFILL, "audit_runs": AUDIT, "worker_processes": PROCESS}
OURS = tuple(DRAW)
# Of which tables each role learns that their sequence is wrong.
LEARNT = {
    "api": OURS[:3],
    "worker": OURS,
    "operator": OURS,
}


@pytest.mark.parametrize("table", OURS)
@pytest.mark.parametrize("role", LEARNT)
async def test_a_role_is_lent_no_connection_where_it_would_draw_ids_again(
    role: str, table: str, urls: dict[str, str], sql: asyncpg.Connection
) -> None:
    await sql.execute("SELECT setval('outbox_events_id_seq', 7)")  # which the backfill has appended
    await sql.execute(f"{DRAW[table]} SELECT setval('{table}_id_seq', 1, false)")
    async with engine_of(urls[role]) as engine:
        if table in LEARNT[role]:
            with pytest.raises(UnfitServerError, match=f"{table}_id_seq is behind"):
                async with driver_connection(engine):
                    pass
        else:
            async with driver_connection(engine):
                pass


@pytest.mark.parametrize("role", LEARNT)
async def test_what_a_role_may_not_read_is_no_evidence(
    role: str, urls: dict[str, str], sql: asyncpg.Connection
) -> None:
    """As under the file of the release before: its processes go on as they did."""
    sequences = ", ".join(f"{table}_id_seq" for table in OURS)
    await sql.execute(f"REVOKE ALL ON SEQUENCE {sequences} FROM collection_sync_{role}")
    await sql.execute(f"{EVENT} SELECT setval('outbox_events_id_seq', 1, false)")
    async with engine_of(urls[role]) as engine, driver_connection(engine) as connection:
        assert await connection.fetchval("SELECT 1") == 1


async def test_what_the_catalogue_alone_tells_every_role_learns(
    urls: dict[str, str], sql: asyncpg.Connection
) -> None:
    await sql.execute("REVOKE ALL ON SEQUENCE outbox_events_id_seq FROM collection_sync_api")
    await sql.execute("ALTER SEQUENCE outbox_events_id_seq CACHE 50")
    async with engine_of(urls["api"]) as engine:
        with pytest.raises(UnfitServerError, match="CACHE 50"):
            async with driver_connection(engine):
                pass


IMPOSSIBLE = {
    "an audit that runs": (
        "INSERT INTO audit_runs (status, requested_by, repair) VALUES ('running', 'x', false)"
    ),
    "an audit that failed": (
        "INSERT INTO audit_runs (status, requested_by, repair) VALUES ('failed', 'x', false)"
    ),
    "an audit that is done": (
        "INSERT INTO audit_runs (status, requested_by, repair) VALUES ('finished', 'x', false)"
    ),
    "a backfill of empty chunks": (
        "INSERT INTO backfill_runs (status, in_worker, max_pending, chunk_size, planned)"
        " VALUES ('running', true, 1, 0, 0)"
    ),
    "a backfill in one chunk": (
        "INSERT INTO backfill_runs (status, in_worker, max_pending, chunk_size, planned)"
        " VALUES ('running', true, 1, 2147483647, 0)"
    ),
    "a backfill that waits for ever": (
        "INSERT INTO backfill_runs (status, in_worker, max_pending, chunk_size, planned)"
        " VALUES ('running', true, 0, 1, 0)"
    ),
    "a backfill at no rate": (
        "INSERT INTO backfill_runs (status, in_worker, max_pending, chunk_size, planned, rate)"
        " VALUES ('running', true, 1, 1, 0, 0)"
    ),
}


@pytest.mark.parametrize("insert", IMPOSSIBLE.values(), ids=IMPOSSIBLE)
async def test_the_api_may_ask_for_runs_but_make_none_that_nobody_ends(
    insert: str, urls: dict[str, str]
) -> None:
    async with connected(urls["api"]) as connection:
        with pytest.raises(asyncpg.CheckViolationError):
            await connection.execute(insert)
