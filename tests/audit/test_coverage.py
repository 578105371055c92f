"""What a verdict needs: a comparison that sees, every pair compared, and a pass that came to its end."""

import asyncio

import asyncpg
import pytest
from sqlalchemy.ext.asyncio import AsyncEngine

from shared.audit_runs import AuditOptions, latest_finished
from shared.pair import COLUMNS, differs
from tests.audit.pairs import audited, found, put_legacy, put_pair, put_synced
from tests.engines import COUNTS_AT_ONCE
from tests.twins.replacing import replaced
from worker.audit import comparison, run
from worker.audit.log import Progress
from worker.audit.run import audit

TEXT = differs("research_context")
NO_COLLECTION = "NOT EXISTS (SELECT FROM collections WHERE collection_id = target_id)"
STATEMENTS = ("TALLY", "STRAYS", "DIFFERENCES")
TWINS = {
    **{f"blind to {name}": (differs(name), "false") for name in COLUMNS},
    "takes NULL for equal": (TEXT, "legacy.research_context <> target.research_context"),
    "takes NULL for empty": (
        TEXT,
        "coalesce(legacy.research_context, '') <> coalesce(target.research_context, '')",
    ),
    "takes no notice of case": (
        TEXT,
        "lower(legacy.research_context) IS DISTINCT FROM lower(target.research_context)",
    ),
    "compares milliseconds": (
        differs("updated_at"),
        "date_trunc('milliseconds', legacy.updated_at) <> date_trunc('milliseconds', target.updated_at)",
    ),
    "blind to missing rows": ("FULL JOIN", "RIGHT JOIN"),
    "blind to rows without a collection": ("FULL JOIN", "LEFT JOIN"),
    "lists links as orphans": (NO_COLLECTION, "true"),
    "counts links as orphans": ("WHERE legacy_id IS NULL", ""),
    "lists no strays": (NO_COLLECTION, "false"),
    "counts no strays": ("WHERE legacy_id IS NULL", "WHERE false"),
    "takes NULL for active": ("is_active IS TRUE AS is_active", "is_active IS NOT FALSE AS is_active"),
    "takes deleted rows for active": ("is_active IS TRUE AS is_active", "true AS is_active"),
    "joins without the project": ("AND target.project_id = legacy.project_id", ""),
    "ignores the outbox": (comparison.WAITS, "false"),
    "takes everything for pending": (comparison.WAITS, "true"),
    "takes what is too old for pending": ("WHERE event.id > coalesce(guard.version, 0)", ""),
    "takes no notice of what nobody claims": (comparison.WAITS_IN_VAIN, "false"),
    "looks at half of the keys": ("= $2::integer)", "= $2::integer / 2)"),
}


def put_twin(monkeypatch: pytest.MonkeyPatch, old: str, new: str) -> None:
    """Replace the part wherever it is; it must be somewhere."""
    statements = {name: getattr(comparison, name) for name in STATEMENTS}
    assert any(old in statement for statement in statements.values())
    for name, statement in statements.items():
        monkeypatch.setattr(comparison, name, statement.replace(old, new))


@pytest.mark.parametrize("project_id", [None, "p1"], ids=["all", "one project"])
async def test_the_canary_passes_the_right_comparison(project_id: str | None, engine: AsyncEngine) -> None:
    for slices in (1, 4):
        one = await audited(engine, slices=slices, project_id=project_id)
        assert (one.canary_found, one.verdict, one.error) == (True, "in_sync", None)


async def test_the_canary_convicts_every_blind_comparison(
    engine: AsyncEngine, seeded: asyncpg.Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    await put_legacy(seeded, "missing")
    for name, (old, new) in TWINS.items():
        with monkeypatch.context() as patch:
            put_twin(patch, old, new)
            one = await audited(engine, slices=2)
        assert (one.status, one.verdict, one.canary_found) == ("finished", "incomplete", False), name
        assert "canary" in (one.error or ""), name
        assert one.chunks_done == one.compared == 0, name


@COUNTS_AT_ONCE
async def test_the_canary_touches_no_real_table(engine: AsyncEngine, seeded: asyncpg.Connection) -> None:
    await put_pair(seeded, "a")

    async def traces() -> list[object]:
        tables = (
            "collections",
            "project_collections",
            "outbox_events",
            "outbox_dead_letters",
            "applied_versions",
        )
        counts = [await seeded.fetchval(f"SELECT count(*) FROM {table}") for table in tables]  # noqa: S608
        sequences = await seeded.fetch(
            "SELECT sequencename, last_value FROM pg_sequences"
            " WHERE sequencename NOT LIKE 'audit%' ORDER BY sequencename"
        )
        await seeded.execute("SELECT pg_stat_force_next_flush()")
        writes = await seeded.fetch(
            "SELECT relname, n_tup_ins, n_tup_upd, n_tup_del FROM pg_stat_user_tables"
            " WHERE schemaname = 'public' AND relname NOT LIKE 'audit%' ORDER BY 1"
        )
        temporary = await seeded.fetchval("SELECT count(*) FROM pg_class WHERE relpersistence = 't'")
        return [counts, sequences, writes, temporary]

    await traces()
    before = await traces()
    await audited(engine)

    assert await traces() == before


async def test_without_the_right_to_temporary_tables_the_audit_says_what_to_grant(
    engine: AsyncEngine, seeded: asyncpg.Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    await seeded.execute("""
        DO $$ BEGIN EXECUTE format('REVOKE TEMPORARY ON DATABASE %I FROM PUBLIC', current_database()); END $$;
        CREATE ROLE narrow; GRANT ALL ON ALL TABLES IN SCHEMA public TO narrow;
    """)
    monkeypatch.setattr(
        "worker.audit.canary.SHADOW", "SET LOCAL ROLE narrow; CREATE TEMPORARY TABLE collections (a int)"
    )
    try:
        one = await audited(engine)
    finally:
        await seeded.execute("DROP OWNED BY narrow; DROP ROLE narrow")

    assert one.verdict == "incomplete"
    assert "GRANT TEMPORARY" in (one.error or "")


async def test_fewer_pairs_compared_than_planned_is_incomplete(
    engine: AsyncEngine, seeded: asyncpg.Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    await put_synced(seeded, 40)
    lossy = replaced(comparison.TALLY, ") AS legacy\n", " AND collection_id <> 'c-7') AS legacy\n")
    monkeypatch.setattr(comparison, "TALLY", lossy)

    one = await audited(engine, slices=4)

    assert (one.canary_found, one.chunks_done, one.chunks_planned) == (True, 4, 4)
    assert (one.verdict, one.planned, one.compared) == ("incomplete", 40, 39)
    assert one.error == "39 pairs were compared, 40 planned; 4 of 4 slices were done, 1 not as planned."


async def test_pairs_compared_twice_are_not_taken_for_those_left_out(
    engine: AsyncEngine, seeded: asyncpg.Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    await put_synced(seeded, 40)
    counts = iter([1, -1, 0, 0])
    right = comparison.compare

    async def shifted(connection: asyncpg.Connection, scope: comparison.Slice) -> comparison.Tally:
        tally = await right(connection, scope)
        return tally + comparison.Tally(compared=next(counts))

    monkeypatch.setattr(run, "compare", shifted)

    one = await audited(engine, slices=4)

    assert one.planned == one.compared == 40
    assert one.verdict == "incomplete"
    assert "2 not as planned" in (one.error or "")


async def test_a_pass_that_dies_midway_is_no_pass(
    engine: AsyncEngine, seeded: asyncpg.Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    await put_synced(seeded, 40)
    right = comparison.compare

    async def dying(connection: asyncpg.Connection, scope: comparison.Slice) -> comparison.Tally:
        if scope.slice == 2:
            await connection.execute("SELECT 1 / 0")
        return await right(connection, scope)

    monkeypatch.setattr(run, "compare", dying)

    with pytest.raises(asyncpg.DivisionByZeroError):
        await audited(engine, slices=4)

    row = await seeded.fetchrow("SELECT * FROM audit_runs")
    assert (row["status"], row["verdict"], row["chunks_done"]) == ("failed", "incomplete", 2)
    assert row["error"] == "division by zero (22012)"
    async with engine.connect() as connection:
        assert await latest_finished(connection) is None


async def test_an_interrupted_pass_is_no_pass(engine: AsyncEngine, seeded: asyncpg.Connection) -> None:
    await put_synced(seeded, 40)
    interrupted = asyncio.Event()

    def interrupt(progress: Progress) -> None:
        if progress.chunks_done == 2:
            interrupted.set()

    one = await audit(
        engine, AuditOptions(), requested_by="command", interrupted=interrupted, watch=interrupt, slices=4
    )

    assert (one.status, one.verdict, one.error) == ("failed", "incomplete", "interrupted")
    assert (one.chunks_done, one.chunks_planned) == (2, 4)


async def test_only_a_thousand_findings_are_listed_and_all_are_counted(
    engine: AsyncEngine, seeded: asyncpg.Connection
) -> None:
    await put_synced(seeded, 1_500)
    await seeded.execute("DELETE FROM project_collections")

    one = await audited(engine, slices=4)

    assert one.missing == one.found == 1_350
    assert len(await found(seeded)) == 1_000


async def test_an_audit_that_comes_every_minute_lists_few_and_counts_all(
    engine: AsyncEngine, seeded: asyncpg.Connection
) -> None:
    await put_synced(seeded, 100)
    await seeded.execute("DELETE FROM project_collections")

    one = await audit(engine, AuditOptions(), requested_by="schedule", interrupted=asyncio.Event(), slices=4)

    assert one.missing == one.found == one.active_collections > 20
    assert len(await found(seeded)) == 20


async def test_a_column_that_nobody_compares_is_nobodys_concern(
    engine: AsyncEngine, seeded: asyncpg.Connection
) -> None:
    await seeded.execute("""
        ALTER TABLE collections ADD COLUMN visibility varchar NOT NULL DEFAULT 'private';
        ALTER TABLE project_collections ADD COLUMN rank integer NOT NULL DEFAULT 0;
    """)
    one = await audited(engine)
    assert (one.canary_found, one.verdict, one.error) == (True, "in_sync", None)


async def test_where_a_search_path_has_temporary_tables_last_the_canary_is_found_all_the_same(
    engine: AsyncEngine, seeded: asyncpg.Connection
) -> None:
    await put_synced(seeded, 1)
    database = await seeded.fetchval("SELECT current_database()")
    await seeded.execute(f'ALTER DATABASE "{database}" SET search_path = public, pg_temp')
    await engine.dispose()
    one = await audited(engine)
    assert (one.canary_found, one.verdict, one.error) == (True, "in_sync", None)


async def test_where_an_event_trigger_refuses_temporary_tables_the_audit_says_so(
    engine: AsyncEngine, sql: asyncpg.Connection
) -> None:
    await sql.execute("""
        CREATE FUNCTION refuse() RETURNS event_trigger LANGUAGE plpgsql AS $$ BEGIN RAISE 'secret'; END $$;
        CREATE EVENT TRIGGER refuse ON ddl_command_start EXECUTE FUNCTION refuse();
    """)
    one = await audited(engine)
    assert (one.verdict, one.canary_found) == ("incomplete", False)
    assert "which an event trigger refuses: raise, PL/pgSQL function refuse()" in str(one.error)
