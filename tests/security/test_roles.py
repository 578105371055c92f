"""The roles of `deploy/roles.sql`: what each may, shown by running the product, and what it may not."""

import asyncio
import contextlib
import json
import secrets
import subprocess
import sys
from collections.abc import AsyncIterator
from typing import Any

import asyncpg
import httpx
import pytest
from pydantic import SecretStr
from sqlalchemy.engine import make_url
from sqlalchemy.ext.asyncio import AsyncEngine

from deploy.local.postgres import Postgres
from shared import dead_letters
from shared.database import create_engine
from shared.dead_letters import Selection
from shared.events import EventType, Source
from shared.outbox import append_states
from shared.outbox_tables import metadata
from shared.settings import Settings
from tests.api import test_recording
from tests.api.recording import seed as seed_recorded
from tests.conftest import migrate
from tests.databases import Databases
from tests.drift import drained
from tests.legacy_rows import seed, set_collection
from tests.phase1.script import BEFORE_PHASE_1, SCRIPT
from tests.processes import ROOT, Running, environment, free_port, running_api, running_worker
from tests.security.conftest import ROLES, ROLES_SQL
from worker.caution import Caution
from worker.claim import LIVE_LANE
from worker.dead_letters.upkeep import LetterUpkeep
from worker.presence import Presence
from worker.relay import drain
from worker.snapshot_holders import HOLDERS

ADMIN_TOKEN = "administrators only"
GRANTED = """
    SELECT grantee::regrole::text, relname::text, attname::text, privilege_type
    FROM pg_class
    JOIN pg_attribute ON attrelid = pg_class.oid AND attnum > 0
    CROSS JOIN LATERAL (VALUES (relacl), (attacl)) AS acl (items)
    CROSS JOIN LATERAL aclexplode(items)
    WHERE grantee::regrole::text LIKE 'collection\\_sync\\_%'
    ORDER BY 1, 2, 3, 4
"""
LIMITS = ("statement_timeout", "lock_timeout", "idle_in_transaction_session_timeout")
POISON = """
    INSERT INTO outbox_events (aggregate_id, event_type, source, payload) VALUES ($1,
        'collection.updated', 'api', '{"project_id": "p1", "research_context": 7, "created_at": "",
        "updated_at": ""}')
    RETURNING id
"""


@contextlib.asynccontextmanager
async def engine_of(url: str) -> AsyncIterator[AsyncEngine]:
    settings = Settings(database_url=SecretStr(url), redis_url=SecretStr("redis://127.0.0.1:1"))
    engine = create_engine(settings, application_name="test", pool_size=5, statement_timeout_seconds=10)
    yield engine
    await engine.dispose()


@contextlib.asynccontextmanager
async def connected(url: str) -> AsyncIterator[asyncpg.Connection]:
    connection = await asyncpg.connect(url)
    yield connection
    await connection.close()


def assert_nothing_was_refused(*processes: Running) -> None:
    for process in processes:
        assert "42501" not in "".join(process.lines), process.output
        for event in ("batch_failed", "duty_failed", "request_failed", "database_unavailable"):
            assert process.logged(event) == []


async def command(url: str, redis_url: str, *arguments: str) -> dict[str, Any]:
    """Run a command with --json to its success and return what it printed."""
    done = await asyncio.to_thread(
        subprocess.run,
        [sys.executable, *arguments, "--json"],
        cwd=ROOT,
        env=environment(url, redis_url),
        check=False,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    result: dict[str, Any] = json.loads(done.stdout)
    return result


async def emptied(sql: asyncpg.Connection) -> None:
    """Wait until nothing is pending, whatever its outcome was."""
    async with asyncio.timeout(20):
        while await sql.fetchval("SELECT count(*) FROM outbox_events"):
            await asyncio.sleep(0.01)


async def died(sql: asyncpg.Connection, collection_id: str) -> int:
    """Append a poison event and return its id once a worker has set it aside."""
    event_id: int = await sql.fetchval(POISON, collection_id)
    await emptied(sql)
    return event_id


async def test_the_api_role_answers_every_recorded_request(
    urls: dict[str, str], redis_url: str, sql: asyncpg.Connection
) -> None:
    await seed_recorded(sql)
    settings = Settings(database_url=SecretStr(urls["api"]), redis_url=SecretStr(redis_url))
    replay = test_recording.test_every_recorded_request_gets_the_recorded_answer_and_leaves_the_recorded_rows
    async with engine_of(urls["worker"]) as engine:
        await replay(settings, sql, engine, test_recording.in_our_app)


@pytest.mark.slow
async def test_api_worker_and_commands_work_as_their_roles(
    urls: dict[str, str], redis_url: str, sql: asyncpg.Connection
) -> None:
    """A backfill and a repair over HTTP and by command, writes in between, a poison event, a rollback."""
    await seed(sql)
    await sql.execute(BEFORE_PHASE_1)
    headers = {"User-ID": "owner", "X-Admin-Token": ADMIN_TOKEN}
    async with (
        running_worker(
            environment(urls["worker"], redis_url, WORKER_METRICS_PORT=str(free_port()))
        ) as worker,
        running_api(environment(urls["api"], redis_url, ADMIN_TOKEN=ADMIN_TOKEN)) as (api, api_url),
        httpx.AsyncClient(base_url=api_url, headers=headers, timeout=30) as client,
    ):
        assert (await client.post("/admin/backfill", json={"project_id": "p1"})).status_code == 202
        await worker.wait_for("backfill_finished")
        assert (await client.get("/admin/backfill")).json()["status"] == "finished"
        for action in ("pause", "resume", "cancel"):
            assert (await client.post(f"/admin/backfill/{action}")).status_code == 409
        filled = await command(urls["operator"], redis_url, "-m", "worker.backfill", "--wait")
        assert (filled["status"], filled["audit"]["verdict"]) == ("finished", "in_sync")

        one = "/projects/p1/collections"
        created = (await client.post(one, json={"collection_name": "new"})).json()["collection_id"]
        assert (await client.put(f"{one}/{created}", json={"description": "x"})).status_code == 200
        assert (await client.get(f"{one}/{created}/sync")).status_code == 200
        assert (await client.delete(f"{one}/{created}")).status_code == 200
        await drained(sql)

        await sql.execute("UPDATE project_collections SET research_context = 'drift' WHERE id % 2 = 0")
        repaired = await command(urls["operator"], redis_url, "-m", "worker.audit", "--repair")
        assert (repaired["verdict"], repaired["repaired"] > 0) == ("repaired", True)
        first, second, third = [await died(sql, collection) for collection in ("c01", "c02", "c04")]
        letters = [urls["operator"], redis_url, "-m", "worker.dead_letters"]
        assert (await command(*letters, "show", str(first)))["state"] == "dead"
        assert (await command(*letters, "replay", "--wait", str(first)))["replayed"] == 1
        for method, path in (
            ("GET", ""),
            ("GET", f"/{second}"),
            ("POST", f"/{second}/discard"),
            ("POST", f"/{third}/replay"),
        ):
            answer = await client.request(method, f"/admin/dead-letters{path}")
            assert answer.status_code == 200, (path, answer.text)
        await emptied(sql)
        verified = (await client.get("/admin/verify-phase1-migration")).json()
        assert (verified["verdict"], verified["match"]) == ("in_sync", True)
        assert (await client.get("/readyz")).json()["status"] == "ready"
        assert_nothing_was_refused(api, worker)
        busy = await command(urls["operator"], redis_url, SCRIPT, "--rollback")
        assert busy["dry_run"]
    states = await sql.fetch("SELECT state FROM outbox_dead_letters ORDER BY id")
    assert [row["state"] for row in states] == ["replayed", "discarded", "replayed"]
    gone = await command(urls["operator"], redis_url, SCRIPT, "--rollback", "--yes")
    assert gone["removed"] > 0


async def test_a_worker_drives_repairs_and_prunes_audits_by_itself(
    urls: dict[str, str], redis_url: str, sql: asyncpg.Connection
) -> None:
    await seed(sql)
    await sql.execute(BEFORE_PHASE_1)
    await sql.execute("""
        INSERT INTO audit_runs (status, requested_by, repair, finished_at)
        VALUES ('failed', 'schedule', false, clock_timestamp() - interval '40 days');
        INSERT INTO audit_findings (audit_run_id, collection_id, project_id, kind)
        VALUES (1, 'c01', 'p1', 'missing');
        INSERT INTO audit_runs (status, requested_by, repair) VALUES ('requested', 'admin', true);
    """)
    async with running_worker(environment(urls["worker"], redis_url)) as worker:
        finished = await worker.wait_for("audit_finished")
        assert (finished["verdict"], finished["canary_found"]) == ("repaired", True)
        assert_nothing_was_refused(worker)
    assert await sql.fetchval("SELECT array_agg(id) FROM audit_runs") == [2]
    assert await sql.fetchval("SELECT count(*) FROM audit_findings WHERE audit_run_id = 1") == 0


DASHBOARD = [
    "SELECT state, count(*), max(died_at) FROM outbox_dead_letters GROUP BY state",
    "SELECT lane, count(*), min(created_at), max(attempts) FROM outbox_events GROUP BY lane",
    "SELECT id, traceparent FROM outbox_events UNION SELECT id, traceparent FROM outbox_dead_letters",
    "SELECT * FROM audit_runs ORDER BY id DESC LIMIT 1",
    "SELECT audit_run_id, collection_id, kind, outcome FROM audit_findings",
    "SELECT status, processed, planned, throttled_by FROM backfill_runs",
    "SELECT name, heartbeat_at FROM worker_processes WHERE ended_at IS NULL",
    "SELECT count(*) FROM collections WHERE is_active",
    "SELECT count(*) FROM project_collections",
    "SELECT count(*), count(*) FILTER (WHERE is_deleted) FROM applied_versions",
    "SELECT max(version_num) FROM collection_sync_version",
]


async def test_the_reader_sees_counts_ages_and_states(urls: dict[str, str]) -> None:
    async with connected(urls["reader"]) as connection:
        for statement in DASHBOARD:
            await connection.execute(statement)


@pytest.mark.parametrize("role", ["api", "operator"])
async def test_dead_letters_are_found_replayed_and_discarded_as_this_role(
    role: str, urls: dict[str, str], engine: AsyncEngine, sql: asyncpg.Connection
) -> None:
    await seed(sql)
    await set_collection(engine, "c01", "text")
    for _ in range(2):
        await sql.execute(POISON, "c01")
    await drain(engine)
    async with engine_of(urls[role]) as as_role, as_role.begin() as connection:
        first, second = await dead_letters.find(connection, Selection(project_id="p1"))
        assert await dead_letters.count(connection, Selection(state=None)) == {"dead": 2}
        assert list((await dead_letters.replay(connection, [first.id])).replayed) == [first.id]
        assert await dead_letters.discard(connection, [second.id]) == [second.id]


async def test_a_worker_sets_lethal_events_aside_and_tends_letters_as_its_role(
    urls: dict[str, str], engine: AsyncEngine, sql: asyncpg.Connection
) -> None:
    """Through all that comes after processes that were killed: presence, marks, burial, and closing."""
    await seed(sql)
    await sql.execute("""
        INSERT INTO worker_processes (name, heartbeat_at)
        SELECT 'killed', clock_timestamp() - interval '1 minute' * age FROM generate_series(1, 90) AS age
    """)
    lethal = await set_collection(engine, "one", "text")
    await sql.execute("UPDATE outbox_events SET attempts = 3")
    async with engine_of(urls["worker"]) as as_worker:
        presence = Presence(as_worker, "host:1")
        caution = Caution(presence)
        assert await caution.is_due(LIVE_LANE)
        await caution.run_once(as_worker, LIVE_LANE)
        await set_collection(engine, "one", "another")
        await caution.run_once(as_worker, LIVE_LANE)
        await presence.beat()
        await presence.leave()
        await LetterUpkeep(as_worker, retention_days=1).tend()
        assert dict(await sql.fetch("SELECT id, state FROM outbox_dead_letters")) == {lethal: "superseded"}
        await sql.execute("UPDATE outbox_dead_letters SET closed_at = closed_at - interval '2 days'")
        await LetterUpkeep(as_worker, retention_days=1).tend()
    assert await sql.fetchval("SELECT count(*) FROM outbox_dead_letters") == 0


@pytest.mark.parametrize("role", ["api", "worker", "operator"])
async def test_whoever_replays_or_repairs_appends_the_present_state(
    role: str, urls: dict[str, str], engine: AsyncEngine, sql: asyncpg.Connection
) -> None:
    await seed(sql)
    await set_collection(engine, "one", "text")
    async with engine_of(urls[role]) as as_role, as_role.begin() as connection:
        assert list(await append_states(connection, ["one"], EventType.UPDATED, Source.REPAIR)) == ["one"]


async def test_the_worker_role_sees_who_holds_a_snapshot_but_not_what_they_ask(
    urls: dict[str, str], database_url: str, sql: asyncpg.Connection
) -> None:
    await seed(sql)
    async with connected(database_url) as holder, engine_of(urls["worker"]) as as_worker:
        transaction = holder.transaction(isolation="repeatable_read")
        await transaction.start()
        await holder.execute("SELECT count(*) FROM collections")
        await sql.execute("UPDATE projects SET project_name = 'x'")
        pid = holder.get_server_pid()
        async with as_worker.connect() as connection:
            holders = {row.pid: row for row in await connection.execute(HOLDERS)}
            queries = await connection.exec_driver_sql(
                "SELECT query FROM pg_stat_activity WHERE pid = $1", (pid,)
            )
            assert queries.scalar_one() == "<insufficient privilege>"
        assert (holders[pid].kind, holders[pid].state) == ("session", None)
        await transaction.rollback()


NOT_FOR_ANYBODY = [
    "SELECT password_hash FROM users",
    "SELECT * FROM users",
    "UPDATE users SET role = 'admin'",
    "INSERT INTO projects (project_id, project_name, owner_user_id) VALUES ('x', 'x', 'x')",
    "UPDATE projects SET owner_user_id = 'x'",
    "UPDATE project_collaborators SET is_active = true",
    "SELECT * FROM activity_logs",
    "UPDATE activity_logs SET description = ''",
    "DELETE FROM activity_logs",
    "SELECT article_title FROM article_collections",
    "DELETE FROM article_collections",
    "DELETE FROM collections",
    "TRUNCATE collections",
    "UPDATE collections SET collection_id = 'x'",
    "UPDATE collections SET project_id = 'x'",
    "UPDATE collections SET created_by = 'x'",
    "UPDATE project_collections SET tags = '[]'",
    "UPDATE project_collections SET project_id = 'x'",
    "TRUNCATE project_collections",
    "UPDATE outbox_events SET payload = '{}'",
    "UPDATE outbox_events SET aggregate_id = 'x'",
    "UPDATE outbox_events SET traceparent = NULL",
    (
        "INSERT INTO outbox_events (id, aggregate_id, event_type, source, payload)"
        " OVERRIDING SYSTEM VALUE VALUES (1, 'x', 'x', 'api', '{}')"
    ),
    "TRUNCATE outbox_events",
    "UPDATE outbox_dead_letters SET payload = '{}'",
    "UPDATE outbox_dead_letters SET traceparent = NULL",
    "UPDATE collection_sync_version SET version_num = '0'",
    "DELETE FROM backfill_runs",
    "DROP TABLE outbox_events",
    "ALTER TABLE collections DISABLE TRIGGER ALL",
    "CREATE TABLE ours (id integer)",
    "SET ROLE postgres",
    "COPY (SELECT 1) TO PROGRAM 'true'",
    "SELECT pg_read_file('PG_VERSION')",
    "CREATE ROLE another",
]
FORBIDDEN = {
    "api": [
        "SELECT payload FROM outbox_events",
        "SELECT * FROM outbox_events",
        "SELECT event_type FROM outbox_events",
        "SELECT lane FROM outbox_events",
        "SELECT traceparent FROM outbox_events",
        "DELETE FROM outbox_events",
        "UPDATE outbox_events SET attempts = 0",
        "SELECT id FROM outbox_events FOR UPDATE",
        "SELECT payload FROM outbox_dead_letters",
        "INSERT INTO outbox_dead_letters (id) VALUES (1)",
        "UPDATE outbox_dead_letters SET error = ''",
        "DELETE FROM outbox_dead_letters",
        "SELECT id FROM project_collections",
        "SELECT count(*) FROM project_collections",
        "INSERT INTO project_collections (project_id, collection_id) VALUES ('p1', 'x')",
        "UPDATE project_collections SET research_context = ''",
        "DELETE FROM project_collections",
        "DO 'BEGIN LOCK TABLE project_collections IN ACCESS SHARE MODE; END'",
        "SELECT nextval('project_collections_id_seq')",
        "CREATE TEMPORARY TABLE mine (LIKE project_collections)",
        "INSERT INTO applied_versions (collection_id, version) VALUES ('x', 1)",
        "UPDATE applied_versions SET version = 0",
        "DELETE FROM applied_versions",
        "SELECT project_id FROM applied_versions",
        "SELECT note_count FROM collections",
        "UPDATE collections SET created_at = now()",
        "UPDATE audit_runs SET verdict = 'in_sync'",
        "DELETE FROM audit_runs",
        (
            "INSERT INTO audit_runs (status, verdict, requested_by, repair)"
            " VALUES ('finished', 'in_sync', 'admin', false)"
        ),
        "SELECT legacy FROM audit_findings",
        "UPDATE backfill_runs SET cursor_key = 'z'",
        "SELECT name FROM worker_processes",
        "INSERT INTO worker_processes (name) VALUES ('x')",
    ],
    "worker": [
        "INSERT INTO collections (collection_id, project_id) VALUES ('x', 'p1')",
        "UPDATE collections SET description = ''",
        "UPDATE collections SET is_active = false",
        "UPDATE collections SET updated_at = now()",
        "SELECT user_id FROM users",
        "SELECT owner_user_id FROM projects",
        "SELECT user_id FROM project_collaborators",
        "INSERT INTO activity_logs (activity_id) VALUES ('x')",
        "SELECT article_pmid FROM article_collections",
        "INSERT INTO project_collections (project_id, collection_id, tags) VALUES ('p1', 'x', '[]')",
        "UPDATE project_collections SET linked_project_question_ids = '{}'",
        "SELECT payload FROM outbox_dead_letters",
        "SELECT traceparent FROM outbox_dead_letters",
        "DELETE FROM applied_versions",
        "INSERT INTO backfill_runs (status) VALUES ('running')",
        "SELECT version_num FROM collection_sync_version",
    ],
    "operator": [
        "INSERT INTO collections (collection_id, project_id) VALUES ('x', 'p1')",
        "UPDATE collections SET description = ''",
        "SELECT user_id FROM users",
        "SELECT owner_user_id FROM projects",
        "INSERT INTO activity_logs (activity_id) VALUES ('x')",
        "INSERT INTO project_collections (project_id, collection_id) VALUES ('p1', 'x')",
        "UPDATE project_collections SET research_context = ''",
        "UPDATE applied_versions SET version = 0",
        "INSERT INTO applied_versions (collection_id) VALUES ('x')",
        "INSERT INTO outbox_dead_letters (id) VALUES (1)",
        "UPDATE outbox_dead_letters SET error = ''",
        "DELETE FROM outbox_dead_letters",
        "DELETE FROM worker_processes",
    ],
    "reader": [
        "SELECT payload FROM outbox_events",
        "SELECT payload FROM outbox_dead_letters",
        "SELECT legacy FROM audit_findings",
        "SELECT target FROM audit_findings",
        "SELECT driver_token FROM backfill_runs",
        "SELECT user_id FROM users",
        "SELECT project_id FROM projects",
        "SELECT description FROM collections",
        "SELECT collection_name FROM collections",
        "SELECT research_context FROM project_collections",
        "SELECT tags FROM project_collections",
        "INSERT INTO outbox_events (aggregate_id, source, payload) VALUES ('x', 'api', '{}')",
        "DELETE FROM outbox_events",
        "UPDATE outbox_dead_letters SET state = 'discarded'",
        "UPDATE collections SET note_count = 0",
        "SELECT collection_id FROM collections FOR SHARE",
        "INSERT INTO audit_runs (status, requested_by, repair) VALUES ('requested', 'admin', false)",
        "UPDATE backfill_runs SET status = 'cancelled'",
        "DELETE FROM project_collections",
        "UPDATE applied_versions SET version = 0",
        "DELETE FROM worker_processes",
        "CREATE TEMPORARY TABLE mine (LIKE collections)",
    ],
    "scaler": [
        "SELECT * FROM outbox_events",
        "SELECT payload FROM outbox_events",
        "SELECT aggregate_id FROM outbox_events",
        "SELECT event_type FROM outbox_events",
        "SELECT id FROM outbox_events FOR UPDATE",
        "UPDATE outbox_events SET attempts = 0",
        "DELETE FROM outbox_events",
        "INSERT INTO outbox_events (aggregate_id, source, payload) VALUES ('x', 'api', '{}')",
        "SELECT id FROM outbox_dead_letters",
        "SELECT collection_id FROM collections",
        "SELECT collection_id FROM project_collections",
        "SELECT version FROM applied_versions",
        "SELECT status FROM backfill_runs",
        "SELECT verdict FROM audit_runs",
        "SELECT name FROM worker_processes",
        "SELECT version_num FROM collection_sync_version",
        "SELECT project_id FROM projects",
        "SELECT user_id FROM users",
        "CREATE TEMPORARY TABLE mine (LIKE outbox_events)",
    ],
}


@pytest.mark.parametrize("role", ROLES)
async def test_what_a_role_has_no_business_with_is_refused_with_42501(
    role: str, urls: dict[str, str]
) -> None:
    answers = {}
    async with connected(urls[role]) as connection:
        for statement in NOT_FOR_ANYBODY + FORBIDDEN[role]:
            try:
                await connection.execute(statement)
                answers[statement] = "done"
            except asyncpg.PostgresError as error:
                answers[statement] = error.sqlstate
    assert {statement: answer for statement, answer in answers.items() if answer != "42501"} == {}


async def test_the_database_after_another_run_is_the_same_and_what_was_granted_beside_it_is_gone(
    urls: dict[str, str], sql: asyncpg.Connection
) -> None:
    del urls  # asked for so that the file was run
    before = await sql.fetch(GRANTED)
    await sql.execute("GRANT SELECT ON users TO collection_sync_reader")
    await sql.execute("GRANT UPDATE (description) ON collections TO collection_sync_worker")
    assert len(await sql.fetch(GRANTED)) > len(before)
    await sql.execute(ROLES_SQL)
    assert await sql.fetch(GRANTED) == before


async def test_every_table_of_ours_belongs_to_some_role(
    urls: dict[str, str], sql: asyncpg.Connection
) -> None:
    del urls
    granted = {row["relname"] for row in await sql.fetch(GRANTED)}
    assert metadata.tables.keys() - granted == set()


async def test_psql_runs_the_file(database_url: str, postgres: Postgres, sql: asyncpg.Connection) -> None:
    script = ROOT / "deploy" / "roles.sql"
    psql = [str(postgres.binary("psql")), "--no-psqlrc", "--set=ON_ERROR_STOP=1", f"--file={script}"]
    done = await asyncio.to_thread(
        subprocess.run, [*psql, database_url], capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert await sql.fetch(GRANTED)


async def test_an_owner_who_is_no_superuser_runs_the_file(
    databases: Databases, urls: dict[str, str], sql: asyncpg.Connection
) -> None:
    """Logins that were made by somebody else are warned of: their limits are not the owner's to set."""
    owner, login = f"owner_{secrets.token_hex(4)}", f"sync_{secrets.token_hex(4)}"
    await sql.execute(f"CREATE ROLE {owner} LOGIN CREATEROLE PASSWORD 'owner'")
    with databases.clone("template0") as database_url:
        url = make_url(database_url)
        await sql.execute(f"ALTER DATABASE {url.database} OWNER TO {owner}")
        owners = url.set(username=owner, password="owner").render_as_string(hide_password=False)
        await asyncio.to_thread(migrate, owners)
        async with connected(owners) as connection:
            await connection.execute(f"CREATE ROLE {login} LOGIN")
            await sql.execute(f"GRANT collection_sync_api TO {login}")
            warnings: list[str] = []
            connection.add_log_listener(lambda _, message: warnings.append(message.message))
            await connection.execute(ROLES_SQL)
            # Before 16, CREATEROLE is enough to alter any login that is no superuser's.
            not_ours = len(urls) if connection.get_server_version().major >= 16 else 0
            of_the_scaler = 1 if not_ours else 0  # enable_sort
            assert len(warnings) == not_ours * len(LIMITS) + of_the_scaler, warnings
            settings = "SELECT cardinality(setconfig) FROM pg_db_role_setting WHERE setrole = $1::regrole"
            assert await connection.fetchval(settings, login) == len(LIMITS)
            await connection.execute(f"DROP ROLE {login}")
    await sql.execute(f"DROP ROLE {owner}")


async def test_each_login_has_the_limits_of_its_role(urls: dict[str, str]) -> None:
    limits = {}
    for role, url in urls.items():
        async with connected(url) as connection:
            limits[role] = [await connection.fetchval(f"SHOW {name}") for name in LIMITS]
    assert limits == {
        "api": ["10s", "5s", "10s"],
        "worker": ["30s", "10s", "10s"],
        "operator": ["1min", "10s", "10s"],
        "reader": ["30s", "2s", "10s"],
        "scaler": ["2s", "1s", "10s"],
    }


async def test_a_limit_set_on_a_role_does_not_reach_its_members(
    urls: dict[str, str], sql: asyncpg.Connection
) -> None:
    """Why the file sets the limits on the logins themselves."""
    await sql.execute("ALTER ROLE collection_sync_reader SET deadlock_timeout = '77s'")
    try:
        async with connected(urls["reader"]) as connection:
            assert await connection.fetchval("SHOW deadlock_timeout") == "1s"
    finally:
        await sql.execute("ALTER ROLE collection_sync_reader RESET ALL")


async def test_the_limits_of_our_own_sessions_win_over_those_of_the_login(urls: dict[str, str]) -> None:
    async with engine_of(urls["reader"]) as engine, engine.connect() as connection:
        shown = await connection.exec_driver_sql("SHOW statement_timeout")
        assert shown.scalar_one() == "10s"


async def test_a_login_that_has_its_role_since_the_last_run_has_no_limits_until_the_next(
    urls: dict[str, str], sql: asyncpg.Connection
) -> None:
    """As the file says: run it once more after creating a login. Being in two roles gives the longer."""
    login = urls["api"].partition("//")[2].partition(":")[0]
    await sql.execute(f"GRANT collection_sync_operator TO {login}")
    async with connected(urls["api"]) as connection:
        assert await connection.fetchval("SHOW statement_timeout") == "10s"
    await sql.execute(ROLES_SQL)
    async with connected(urls["api"]) as connection:
        assert await connection.fetchval("SHOW statement_timeout") == "1min"


async def test_the_relay_as_the_worker_role_leaves_what_belongs_to_others_alone(
    urls: dict[str, str], engine: AsyncEngine, sql: asyncpg.Connection
) -> None:
    await seed(sql)
    await set_collection(engine, "one", "text")
    async with engine_of(urls["worker"]) as as_worker:
        assert sum((await drain(as_worker)).values()) == 1
        await sql.execute("UPDATE project_collections SET tags = '[1]'")
        await set_collection(engine, "one", "another")
        await drain(as_worker)
    row = await sql.fetchrow("SELECT tags, research_context FROM project_collections")
    assert (row["tags"], row["research_context"]) == ("[1]", "another")
