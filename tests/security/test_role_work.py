"""The roles of `deploy/roles.sql`: what each may, shown by running the product."""

import asyncio
import json
from typing import Any

import asyncpg
import httpx
import pytest
from pydantic import SecretStr
from sqlalchemy.ext.asyncio import AsyncEngine

from api.main import create_app
from shared import dead_letters
from shared.dead_letters import Selection
from shared.events import EventType, Source
from shared.letter_groups import find_groups
from shared.outbox import append_states
from shared.postgres.faults import Said
from shared.settings import Settings
from tests.api import test_recording
from tests.api.clients import started
from tests.api.recording import seed as seed_recorded
from tests.draining import drain
from tests.drift import drained
from tests.forked import run
from tests.legacy_rows import seed, set_collection
from tests.phase1.script import BEFORE_PHASE_1, SCRIPT
from tests.processes import HANG_SECONDS, Running, environment, free_port, running_api, running_worker
from tests.security.as_role import connected, engine_of
from worker.dead_letters.upkeep import LetterUpkeep
from worker.idempotency import KeyUpkeep
from worker.relay.caution import Caution
from worker.relay.claim import LIVE_LANE
from worker.tombstones import TombstoneUpkeep
from worker.vitals.presence import Presence
from worker.vitals.snapshot_holders import HOLDERS

ADMIN_TOKEN = "administrators only"
POISON = """
    INSERT INTO outbox_events (aggregate_id, event_type, source, payload) VALUES ($1,
        'collection.updated', 'api', '{"project_id": "p1", "research_context": 7, "created_at": "",
        "updated_at": ""}')
    RETURNING id
"""


def assert_nothing_was_refused(*processes: Running) -> None:
    for process in processes:
        assert "42501" not in "".join(process.lines), process.output
        for event in ("batch_failed", "duty_failed", "request_failed", "database_unavailable"):
            assert process.logged(event) == []


async def command(url: str, redis_url: str, *arguments: str) -> dict[str, Any]:
    """Run a command with --json to its success and return what it printed."""
    env = environment(url, redis_url)
    done = await asyncio.to_thread(run, [*arguments, "--json"], env, timeout=HANG_SECONDS)
    assert done.returncode == 0, done.stderr
    result: dict[str, Any] = json.loads(done.stdout)
    return result


async def emptied(sql: asyncpg.Connection) -> None:
    """Wait until nothing is pending, whatever its outcome was."""
    async with asyncio.timeout(HANG_SECONDS):
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
        await replay(settings, sql, engine, test_recording.in_our_app, is_moved=False)


async def test_api_worker_and_commands_work_as_their_roles(
    urls: dict[str, str], redis_url: str, sql: asyncpg.Connection
) -> None:
    """A backfill and a repair over HTTP and by command, writes in between, a poison event, a rollback."""
    await seed(sql)
    await sql.execute(BEFORE_PHASE_1)
    await sql.execute("UPDATE migration_phase SET phase = 'shadow_reads'")  # so that losses are counted
    headers = {"User-ID": "owner", "X-Admin-Token": ADMIN_TOKEN}
    async with (
        running_worker(
            environment(urls["worker"], redis_url, WORKER_METRICS_PORT=str(free_port()))
        ) as worker,
        running_api(environment(urls["api"], redis_url, ADMIN_TOKEN=ADMIN_TOKEN)) as (api, api_url),
        httpx.AsyncClient(base_url=api_url, headers=headers, timeout=HANG_SECONDS) as client,
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
        for _ in range(2):
            again = {"Idempotency-Key": "k"}
            assert (
                await client.post(one, json={"collection_name": "once"}, headers=again)
            ).status_code == 200
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
        verified = (await client.get("/admin/verify-phase1-migration?wait_seconds=60")).json()
        assert (verified["verdict"], verified["match"]) == ("in_sync", True)
        assert (await client.get("/readyz")).json()["status"] == "ready"
        await worker.wait_for("going_back_counted")
        assert_nothing_was_refused(api, worker)
        busy = await command(urls["operator"], redis_url, SCRIPT, "--rollback")
        assert busy["dry_run"]
    states = await sql.fetch("SELECT state FROM outbox_dead_letters ORDER BY id")
    assert [row["state"] for row in states] == ["replayed", "discarded", "replayed"]
    gone = await command(urls["operator"], redis_url, SCRIPT, "--rollback", "--yes")
    assert gone["removed"] > 0
    assert await sql.fetchval("SELECT phase FROM migration_phase") == "outbox"


async def test_the_console_shows_and_does_all_as_the_role_of_the_api(
    urls: dict[str, str], redis_url: str, sql: asyncpg.Connection, engine: AsyncEngine
) -> None:
    await seed(sql)
    await set_collection(engine, "c01", "text")
    for collection_id in ("c01", "c02"):
        await sql.execute(POISON, collection_id)
    await drain(engine)
    settings = Settings(
        database_url=SecretStr(urls["api"]),
        redis_url=SecretStr(redis_url),
        admin_token=SecretStr(ADMIN_TOKEN),
    )
    async with started(create_app(settings)) as client:
        client.headers.update({"X-Admin-Token": ADMIN_TOKEN, "X-Actor": "Ada"})
        status = (await client.get("/admin/status")).json()
        assert (status["verdict"], status["unknown"]) == ("not_backfilled", {})
        found = (await client.get("/admin/collections/c01")).json()
        assert (found["verdict"], found["unknown"], len(found["letters"])) == ("in_sync", {}, 1)
        (group,) = (await client.get("/admin/dead-letters/groups")).json()["groups"]
        orders = ("backfill", "backfill/pause", "backfill/resume", "backfill/cancel", "audit", "repair")
        for order in orders:
            assert (await client.post(f"/admin/{order}")).is_success, order
        for order in ("replay", "discard"):
            done = await client.post(f"/admin/dead-letters/{order}", json={"like": group["like"]})
            assert done.status_code == 200
        forced = {"force": True, "reason": "rehearsed"}
        for order in ("advance", "back"):
            done = await client.post(f"/admin/phase/{order}", json=forced if order == "advance" else None)
            assert done.status_code == 200, done.text
        phase = (await client.get("/admin/phase")).json()
        assert (phase["epoch"], phase["unknown"], len(phase["turns"])) == (2, {}, 2)
        assert len((await client.get("/admin/acts")).json()) == len(orders) + 4


async def test_a_worker_drives_repairs_and_prunes_audits_by_itself(
    urls: dict[str, str], redis_url: str, sql: asyncpg.Connection
) -> None:
    await seed(sql)
    await sql.execute(BEFORE_PHASE_1)
    await sql.execute("""
        INSERT INTO audit_runs (status, requested_by, repair, started_at, heartbeat_at, finished_at)
        SELECT 'failed', 'schedule', false, long_ago, long_ago, long_ago
        FROM (SELECT clock_timestamp() - interval '40 days') AS _ (long_ago);
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
    for name in ("c01", "c02"):
        await set_collection(engine, name, "text")
        await sql.execute(POISON, name)
    await drain(engine)
    async with engine_of(urls[role]) as as_role, as_role.begin() as connection:
        first, second = await dead_letters.find(connection, Selection(project_id="p1"))
        assert await dead_letters.count(connection, Selection(state=None)) == {"dead": 2}
        assert await dead_letters.said_of(connection, first.id) == Said()
        assert [group.letters for group in await find_groups(connection, Selection(like=first.id))] == [2]
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
        await set_collection(engine, "one", is_active=False)
        await caution.run_once(as_worker, LIVE_LANE)
        await sql.execute("UPDATE applied_versions SET appended_at = '2000-01-01'")
        assert await TombstoneUpkeep(as_worker, retention_days=1).prune_slice() == 1
        await sql.execute(
            "INSERT INTO idempotency_keys (user_id, project_id, key, fingerprint, answer, created_at)"
            " VALUES ('u', 'p', 'k', '', '{}', now() - interval '2 days')"
        )
        assert await KeyUpkeep(as_worker).prune() == 1
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
