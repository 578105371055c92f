"""Neither secrets nor what users wrote show anywhere, whatever goes wrong.

Every password and token here is a canary that is looked for in all that the processes print, log and
answer. What users wrote may stand in the lines of one event only: `audit_finding`.
"""

import asyncio
import json
from collections.abc import Iterator
from pathlib import Path

import asyncpg
import httpx
import pytest
from sqlalchemy.engine import make_url

from deploy.local.valkey import Valkey
from tests.audit.pairs import put_pair
from tests.forked import run
from tests.legacy_rows import seed
from tests.phase1.script import SCRIPT
from tests.processes import HANG_SECONDS, Running, environment, free_port, running_api, running_worker

ADMIN, GATEWAY = "canary-admin-7d1f", "canary-gateway-c2e9"
WRONG_ADMIN, WRONG_GATEWAY = "canary-wrong-admin-5b", "canary-wrong-gateway-90"
WRONG_PASSWORD = "canary-wrong-password-3a"
NAME, DESCRIPTION = "canary-name-18", "canary-description-e4"
WRITTEN = (NAME, DESCRIPTION)
ALL = "/projects/p1/collections"

CRASH = """
    CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$
        BEGIN RAISE EXCEPTION 'no % here', NEW USING ERRCODE = 'XX000', DETAIL = NEW; END $$;
    CREATE TRIGGER refuse BEFORE INSERT ON {table} FOR EACH ROW EXECUTE FUNCTION refuse();
"""
DISCONNECT = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename <> current_user"


def password_of(url: str) -> str:
    password = make_url(url).password
    assert password is not None
    return str(password)


def with_password(url: str, password: str) -> str:
    return make_url(url).set(password=password).render_as_string(hide_password=False)


def away(url: str) -> str:
    return make_url(url).set(port=free_port()).render_as_string(hide_password=False)


@pytest.fixture
def secrets_(urls: dict[str, str], valkey: Valkey) -> list[str]:
    passwords = [password_of(url) for url in urls.values()]
    return [*passwords, valkey.password, WRONG_PASSWORD, ADMIN, GATEWAY, WRONG_ADMIN, WRONG_GATEWAY]


@pytest.fixture
async def _seeded(sql: asyncpg.Connection) -> None:
    await seed(sql)
    await put_pair(sql, "differs", research_context="another text")
    await sql.execute("UPDATE collections SET description = $1, collection_name = $2", DESCRIPTION, NAME)


def shown_in(text: str, canaries: Iterator[str] | list[str] | tuple[str, ...]) -> list[str]:
    return [canary for canary in canaries if canary in text]


def events_with(lines: list[str], canaries: tuple[str, ...]) -> set[str]:
    """Name the events whose lines hold one of the canaries; a line that is not JSON names itself."""
    return {
        json.loads(line)["event"] if line.startswith("{") else line
        for line in lines
        if shown_in(line, canaries)
    }


def command_line_of(process: Running) -> str:
    return Path(f"/proc/{process.pid}/cmdline").read_text(encoding="utf-8")


async def requests_of_all_kinds(client: httpx.AsyncClient) -> list[httpx.Response]:
    """Succeed, and be refused for every reason that there is; returned are the refusals."""
    good = {"X-Gateway-Token": GATEWAY, "User-ID": "owner"}
    new = {"collection_name": NAME, "description": DESCRIPTION}
    for _ in range(2):
        created = await client.post(ALL, headers=good, json=new)
        assert created.status_code == 200, created.text
    assert (await client.get(ALL, headers=good)).status_code == 200
    one = f"{ALL}/{created.json()['collection_id']}"
    wanted = {
        401: [
            await client.post(ALL, headers={"X-Gateway-Token": WRONG_GATEWAY}, json=new),
            await client.get(ALL, headers={"Authorization": f"Bearer {WRONG_GATEWAY}"}),
            await client.get("/admin/backfill", headers={"X-Admin-Token": WRONG_ADMIN}),
            await client.get("/admin/backfill", headers={"X-Admin-Token": GATEWAY}),
        ],
        422: [
            await client.post(ALL, headers=good, json={"collection_name": ["x"]}),
            await client.put(one, headers=good, json={"color": "x"}),
            await client.post("/admin/backfill", headers={"X-Admin-Token": ADMIN}, json={"rate": "x"}),
        ],
        403: [await client.get(ALL, headers=good | {"User-ID": "stranger"})],
        404: [await client.put(f"{ALL}/x", headers=good, json={})],
    }
    for status, answers in wanted.items():
        assert [answer.status_code for answer in answers] == [status] * len(answers)
    return [answer for answers in wanted.values() for answer in answers]


@pytest.mark.usefixtures("_seeded")
async def test_api_and_worker_show_neither_secrets_nor_what_users_wrote(
    urls: dict[str, str], redis_url: str, secrets_: list[str], sql: asyncpg.Connection, tmp_path: Path
) -> None:
    tokens = {"ADMIN_TOKEN": ADMIN, "GATEWAY_TOKEN": GATEWAY}
    logs = {name: tmp_path / f"{name}.log" for name in ("api", "worker")}
    worker_env = environment(urls["worker"], redis_url, LOG_FILE=str(logs["worker"]), **tokens)
    api_env = environment(urls["api"], redis_url, LOG_FILE=str(logs["api"]), **tokens)
    good = {"X-Gateway-Token": GATEWAY, "X-Admin-Token": ADMIN, "User-ID": "owner"}
    async with (
        running_worker(worker_env) as worker,
        running_api(api_env) as (api, api_url),
        httpx.AsyncClient(base_url=api_url, timeout=HANG_SECONDS) as client,
    ):
        refused = await requests_of_all_kinds(client)
        verified = await client.get("/admin/verify-phase1-migration?wait_seconds=60", headers=good)
        assert verified.json()["verdict"] == "drift"
        await worker.wait_for("audit_finding")
        commands = command_line_of(api) + command_line_of(worker)

        await sql.execute(CRASH.format(table="activity_logs"))
        crashed = await client.post(ALL, headers=good, json={"collection_name": NAME})
        await sql.execute("DROP TRIGGER refuse ON activity_logs")
        await sql.execute(f"ALTER ROLE {make_url(urls['api']).username} PASSWORD 'another'")
        await sql.execute(f"ALTER ROLE {make_url(urls['worker']).username} PASSWORD 'another'")
        await sql.execute(DISCONNECT)
        unavailable = [await client.get(path, headers=good) for path in (ALL, ALL, "/readyz")]
        await worker.wait_for("batch_failed")
    assert crashed.status_code == 500
    assert [answer.status_code >= 500 for answer in unavailable] == [True, True, True]
    assert shown_in(commands, secrets_) == []

    answers = "".join(answer.text + str(answer.headers) for answer in [*refused, crashed, *unavailable])
    assert shown_in(answers, secrets_) == []
    lines = [*worker.lines, *api.lines]
    lines += [line for log in logs.values() for line in log.read_text(encoding="utf-8").splitlines()]
    assert api.logged("request_failed")
    assert shown_in("".join(lines), secrets_) == []
    assert events_with(lines, WRITTEN) == {"audit_finding"}


@pytest.mark.usefixtures("_seeded")
async def test_commands_show_neither_secrets_nor_what_users_wrote(
    urls: dict[str, str], redis_url: str, secrets_: list[str], sql: asyncpg.Connection
) -> None:
    url = urls["operator"]
    wrong, gone = with_password(url, WRONG_PASSWORD), away(url)
    locked_out = redis_url.replace(redis_url.split(":")[2].split("@", maxsplit=1)[0], WRONG_PASSWORD)
    tokens = {"ADMIN_TOKEN": ADMIN, "GATEWAY_TOKEN": GATEWAY}
    await sql.execute(CRASH.format(table="outbox_events"))
    expected = {
        ("-m", "worker.preflight"): (wrong, locked_out, 1),
        ("-m", "worker.preflight", "--json"): (url, locked_out, 0),
        ("-m", "worker.status"): (wrong, redis_url, 1),
        ("-m", "worker.status", "--json"): (url, redis_url, 1),  # no worker
        ("-m", "worker.audit", "--help"): (url, redis_url, 0),
        ("-m", "worker.audit", "--json"): (url, locked_out, 1),  # drift
        ("-m", "worker.audit", "--repair"): (url, redis_url, 1),  # crashes
        ("-m", "worker.backfill"): (url, redis_url, 1),  # crashes
        ("-m", "worker.dead_letters", "list"): (gone, redis_url, 1),
        (SCRIPT,): (wrong, redis_url, 1),
        ("-m", "worker", "--check"): (url, locked_out, 1),
        ("-m", "alembic", "upgrade", "head"): (wrong, redis_url, 1),
        ("-m", "uvicorn", "api.main:app"): (url, f"nonsense://x:{WRONG_PASSWORD}@y/z", 2),
    }
    ended = await asyncio.gather(
        *(
            asyncio.to_thread(run, words, environment(database, redis, **tokens), timeout=HANG_SECONDS)
            for words, (database, redis, _) in expected.items()
        )
    )
    for (words, (*_, status)), done in zip(expected.items(), ended, strict=True):
        printed = done.stdout + done.stderr
        assert (words, done.returncode) == (words, status), printed
        assert shown_in(printed, secrets_) == [], words
        is_audit = "worker.audit" in words  # whose findings show both sides of a pair
        lines = (done.stderr if is_audit else printed).splitlines()
        assert events_with(lines, WRITTEN) <= {"audit_finding"}, words
    errors = await sql.fetch("SELECT error FROM audit_runs WHERE error IS NOT NULL")
    assert len(errors) == 1
    assert shown_in(str(errors), WRITTEN) == []


async def test_a_redis_that_refuses_the_password_is_reported_without_it(
    urls: dict[str, str], redis_url: str, secrets_: list[str], sql: asyncpg.Connection
) -> None:
    await seed(sql)
    locked_out = redis_url.replace(redis_url.split(":")[2].split("@", maxsplit=1)[0], WRONG_PASSWORD)
    async with (
        running_worker(environment(urls["worker"], locked_out)) as worker,
        running_api(environment(urls["api"], locked_out)) as (api, api_url),
        httpx.AsyncClient(base_url=api_url, headers={"User-ID": "owner"}, timeout=HANG_SECONDS) as client,
    ):
        assert (await client.post(ALL, json={"collection_name": NAME})).status_code == 200
        assert (await worker.wait_for("event_settled"))["outcome"] == "applied"
        assert await worker.wait_for("redis_lost")
        assert await api.wait_for("doorbell_silent")
        ready = await client.get("/readyz")
    assert ready.json()["checks"]["redis"]["ok"] is False
    assert shown_in("".join([*worker.lines, *api.lines, ready.text]), [*secrets_, NAME]) == []
