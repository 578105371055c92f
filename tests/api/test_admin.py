"""The administrators' token, the verification of phase 1, and backfills over HTTP."""

import asyncio
import hmac
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import asyncpg
import httpx
import pytest
from fastapi import FastAPI
from pydantic import SecretStr
from redis.asyncio import Redis
from sqlalchemy.ext.asyncio import AsyncEngine
from structlog.testing import capture_logs

from api.admin import verification
from api.admin.verification import IS_TENDED
from api.gate.admission import ADMIN_PLACES
from api.main import create_app
from shared.audit_runs import AuditOptions, request
from shared.settings import Settings
from tests.api.clients import ALL, OWNER, P1, SEEDED, started, until_full
from tests.api.test_mounted import host_of
from tests.api.test_writes import until
from tests.doorbell.place import rung
from tests.draining import drain
from tests.processes import HANG_SECONDS, environment, running_worker
from worker.audit.custody import take_up
from worker.audit.run import carry_out
from worker.backfill.custody import take_up as take_up_backfill
from worker.backfill.run import drive

TOKEN = "admin secret à"  # its last byte, read as latin-1, is a blank
VERIFY = "/admin/verify-phase1-migration"
BACKFILL = "/admin/backfill"
ENDPOINTS = [
    ("GET", VERIFY),
    ("POST", BACKFILL),
    ("GET", BACKFILL),
    ("POST", f"{BACKFILL}/pause"),
    ("POST", f"{BACKFILL}/resume"),
    ("POST", f"{BACKFILL}/cancel"),
]
COUNTS = ("active_collections", "home_rows", "compared", "missing", "mismatched", "orphaned", "pending")


@pytest.fixture
def opened(settings: Settings) -> Settings:
    return settings.model_copy(update={"admin_token": SecretStr(TOKEN)})


@pytest.fixture
def admin_app(opened: Settings) -> FastAPI:
    return create_app(opened)


@pytest.fixture
async def admin(
    admin_app: FastAPI, seeded: asyncpg.Connection, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[httpx.AsyncClient]:
    del seeded
    monkeypatch.setattr(verification, "POLL_SECONDS", 0.02)
    async with started(admin_app) as client:
        client.headers = httpx.Headers({b"X-Admin-Token": TOKEN.encode()})
        yield client


def never() -> asyncio.Event:
    return asyncio.Event()


@asynccontextmanager
async def auditor(engine: AsyncEngine) -> AsyncIterator[None]:
    """Carry out what is requested, as a worker does."""

    async def attend() -> None:
        while True:
            if (custody := await take_up(engine)) is not None:
                await carry_out(custody, interrupted=never())
            await asyncio.sleep(0.02)

    task = asyncio.create_task(attend())
    try:
        yield
    finally:
        task.cancel()
        await asyncio.wait([task])


async def backfilled(engine: AsyncEngine, client: httpx.AsyncClient) -> None:
    """Start a backfill over HTTP, drive it and apply its events, as a worker does."""
    assert (await client.post(BACKFILL)).status_code == 202
    custody = await take_up_backfill(engine)
    assert custody is not None
    run = await drive(engine, custody.run.id, interrupted=never(), doorbell=None, custody=custody)
    assert run.status == "finished"
    await drain(engine)


async def verified(client: httpx.AsyncClient, **query: object) -> dict[str, Any]:
    waiting = {"wait_seconds": 60} | query
    answer = await client.get(VERIFY, params={key: str(value) for key, value in waiting.items()})
    assert answer.status_code == 200, answer.text
    result: dict[str, Any] = answer.json()
    assert list(result) == ["match", "verdict", *COUNTS, "verified_at", "audit_id", "message"]
    return result


@pytest.mark.parametrize("headers", [{}, {"X-Admin-Token": ""}, {"Authorization": "Bearer x"}], ids=str)
async def test_without_a_token_configured_nothing_is_there_whatever_is_sent(
    client: httpx.AsyncClient, seeded: asyncpg.Connection, headers: dict[str, str]
) -> None:
    headers = {**headers, "X-Request-ID": "its-own"}
    for method, path in ENDPOINTS:
        for query in ("", "?wait_seconds=nonsense"):
            answer = await client.request(method, path + query, headers=headers, content=b"\xff")
            nowhere = await client.request(method, "/admin/nowhere", headers=headers)
            assert (answer.status_code, answer.json()) == (404, {"detail": "Not Found"})
            assert answer.content == nowhere.content
            assert dict(answer.headers) == dict(nowhere.headers)
    assert await seeded.fetchval("SELECT count(*) FROM audit_runs") == 0


async def test_an_empty_token_opens_nothing(settings: Settings) -> None:
    async with started(create_app(settings.model_copy(update={"admin_token": SecretStr("")}))) as client:
        assert (await client.get(BACKFILL, headers={"X-Admin-Token": ""})).status_code == 404


@pytest.mark.parametrize(
    "offered",
    [
        {},
        {b"Authorization": b"Bearer"},
        {b"Authorization": b"Bearer wrong"},
        {b"Authorization": b"Basic " + TOKEN.encode()},
        {b"X-Admin-Token": b""},
        {b"X-Admin-Token": TOKEN.encode() + b"x"},
        {b"X-Admin-Token": TOKEN.encode("latin-1")},
        {b"X-Gateway-Token": TOKEN.encode()},
    ],
    ids=str,
)
async def test_a_missing_or_wrong_token_is_refused_before_the_body_is_read(
    opened: Settings, offered: dict[bytes, bytes]
) -> None:
    async with started(create_app(opened)) as client:
        for method, path in ENDPOINTS:
            headers = httpx.Headers(offered)
            answer = await client.request(method, path, headers=headers, content=b"\xff")
            assert (answer.status_code, answer.json()) == (401, {"detail": "Missing or wrong admin token"})
            assert answer.headers["WWW-Authenticate"] == "Bearer"


@pytest.mark.parametrize(
    "offered",
    [
        {b"Authorization": b"Bearer " + TOKEN.encode()},
        {b"Authorization": b"bearer " + TOKEN.encode()},
        {b"X-Admin-Token": TOKEN.encode()},
        {b"Authorization": b"Bearer of somebody", b"X-Admin-Token": TOKEN.encode()},
    ],
    ids=str,
)
async def test_the_right_token_opens_in_either_header_without_the_gateways(
    opened: Settings, offered: dict[bytes, bytes]
) -> None:
    guarded = opened.model_copy(update={"gateway_token": SecretStr("the gateway's")})
    async with started(create_app(guarded)) as client:
        answer = await client.get(BACKFILL, headers=httpx.Headers(offered))
        assert (answer.status_code, answer.json()) == (404, {"detail": "No backfill has run yet"})
        assert (await client.get(ALL, headers={**OWNER, "X-Admin-Token": "x"})).status_code == 401


async def test_every_offered_token_is_compared_in_constant_time(
    opened: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    compared: list[tuple[bytes, bytes]] = []

    def compare_digest(offered: bytes, expected: bytes) -> bool:
        compared.append((offered, expected))
        return False

    monkeypatch.setattr(hmac, "compare_digest", compare_digest)
    gateway = opened.model_copy(update={"gateway_token": SecretStr("g")})
    async with started(create_app(gateway)) as client:
        await client.get(BACKFILL, headers={"X-Admin-Token": "a", "Authorization": "Bearer b"})
        await client.get(ALL, headers={"X-Gateway-Token": "c"})
    assert compared == [(b"b", TOKEN.encode()), (b"a", TOKEN.encode()), (b"c", b"g")]


async def test_in_a_hosts_own_app_the_answers_are_the_same(opened: Settings) -> None:
    async with started(host_of(opened)) as host:
        refused = await host.get(BACKFILL, headers={"X-Admin-Token": "wrong"})
        assert (refused.status_code, refused.json()) == (401, {"detail": "Missing or wrong admin token"})
    async with started(host_of(opened.model_copy(update={"admin_token": None}))) as host:
        closed = await host.get(BACKFILL)
        assert (closed.status_code, closed.json()) == (404, {"detail": "Not Found"})


async def test_while_postgresql_is_away_every_answer_is_503(opened: Settings) -> None:
    nowhere = SecretStr("postgresql+asyncpg://nobody@127.0.0.1:1/nothing")
    async with started(create_app(opened.model_copy(update={"database_url": nowhere}))) as client:
        for method, path in ENDPOINTS:
            answer = await client.request(
                method, path, headers=httpx.Headers({b"X-Admin-Token": TOKEN.encode()})
            )
            assert (answer.status_code, answer.headers["Retry-After"]) == (503, "1")


async def test_orders_are_logged_without_the_token(admin: httpx.AsyncClient) -> None:
    with capture_logs() as lines:
        answers = [
            await admin.get(VERIFY, params={"wait_seconds": 0}),
            await admin.post(BACKFILL),
            await admin.post(f"{BACKFILL}/cancel"),
        ]
    about = [{"log_level": "info", "request_id": answer.headers["X-Request-ID"]} for answer in answers]
    assert [line for line in lines if line["event"] != "operator_acted"] == [
        {"event": "verification_requested", "audit_id": 1, **about[0]},
        {"event": "backfill_ordered", "order": "start", "run_id": 1, "status": "running", **about[1]},
        {"event": "backfill_ordered", "order": "cancel", "run_id": 1, "status": "cancelled", **about[2]},
    ]


async def test_agreement_is_a_match(
    admin: httpx.AsyncClient, seeded: asyncpg.Connection, engine: AsyncEngine
) -> None:
    await backfilled(engine, admin)
    async with auditor(engine):
        result = await verified(admin)
    assert (result["match"], result["verdict"]) == (True, "in_sync")
    active = await seeded.fetchval("SELECT count(*) FROM collections WHERE is_active")
    assert result["active_collections"] == result["home_rows"] == active > 1
    assert [result[kind] for kind in ("missing", "mismatched", "orphaned", "pending")] == [0, 0, 0, 0]


async def test_links_to_other_projects_do_not_spoil_the_match(
    admin: httpx.AsyncClient, seeded: asyncpg.Connection, engine: AsyncEngine
) -> None:
    await backfilled(engine, admin)
    linked = await seeded.execute(
        "INSERT INTO project_collections (project_id, collection_id)"
        " SELECT projects.project_id, collections.collection_id FROM collections, projects"
        " WHERE projects.project_id <> collections.project_id ON CONFLICT DO NOTHING"
    )
    assert linked != "INSERT 0 0"
    async with auditor(engine):
        assert (await verified(admin))["match"]


async def test_drift_by_hand_is_found_in_each_kind_although_the_counts_agree(
    admin: httpx.AsyncClient, seeded: asyncpg.Connection, engine: AsyncEngine
) -> None:
    await backfilled(engine, admin)
    keys = [
        row["collection_id"]
        for row in await seeded.fetch("SELECT collection_id FROM collections WHERE is_active")
    ]
    await seeded.execute("UPDATE collections SET is_active = false WHERE collection_id = $1", keys[0])
    await seeded.execute("UPDATE collections SET description = 'x' WHERE collection_id = $1", keys[1])
    await seeded.execute(
        "INSERT INTO collections (collection_id, project_id, collection_name, created_by, is_active)"
        " SELECT 'by hand', $1, 'x', created_by, true FROM collections LIMIT 1",
        P1,
    )
    async with auditor(engine):
        result = await verified(admin)
    assert (result["match"], result["verdict"]) == (False, "drift")
    assert [result[kind] for kind in ("missing", "mismatched", "orphaned")] == [1, 1, 1]
    assert result["active_collections"] == result["home_rows"] == len(keys)
    assert "3 pairs differ" in result["message"]
    assert "worker.audit --repair" in result["message"]


async def test_what_waits_is_pending_and_neither_drift_nor_a_match(
    admin: httpx.AsyncClient, engine: AsyncEngine
) -> None:
    await backfilled(engine, admin)
    await admin.put(SEEDED, headers=OWNER, json={"description": "newer"})
    async with auditor(engine):
        result = await verified(admin)
        assert (result["match"], result["verdict"], result["pending"]) == (False, "pending", 1)
        assert "1 pairs differ only because their events wait" in result["message"]
        await drain(engine)
        assert (await verified(admin))["match"]


async def test_an_audit_that_came_to_no_end_proves_nothing(
    admin: httpx.AsyncClient, seeded: asyncpg.Connection, engine: AsyncEngine
) -> None:
    await admin.get(VERIFY, params={"wait_seconds": 0})
    custody = await take_up(engine)
    assert custody is not None
    stopped = asyncio.Event()
    stopped.set()
    await carry_out(custody, interrupted=stopped)
    assert await seeded.fetchval("SELECT status FROM audit_runs") == "failed"
    result = await verified(admin, audit_id=custody.run.id)
    assert (result["match"], result["verdict"]) == (False, "incomplete")
    assert result["message"].endswith("verify again. Reason: interrupted")


async def test_without_a_worker_it_says_so_and_tells_what_is_known(
    admin: httpx.AsyncClient,
    engine: AsyncEngine,
    seeded: asyncpg.Connection,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(verification, "IS_TENDED", IS_TENDED)
    began = time.monotonic()
    answer = await admin.get(VERIFY, params={"wait_seconds": 3})
    assert time.monotonic() - began >= 3  # a worker that lives has taken it up by then
    assert (answer.status_code, answer.headers["Retry-After"]) == (503, "10")
    detail = answer.json()["detail"]
    assert "No worker carries out audit 1: start one with `python -m worker`" in detail
    assert "No audit has finished yet." in detail

    async with auditor(engine):
        await verified(admin, audit_id=1)
    await admin.get(VERIFY, params={"wait_seconds": 0})
    await seeded.execute("UPDATE audit_runs SET requested_at = requested_at - interval '1 hour'")
    again = await admin.get(VERIFY, params={"wait_seconds": 0})
    assert "The last audit, 1, finished " in again.json()["detail"]


async def test_an_audit_that_takes_longer_is_accepted_and_can_be_asked_for_again(
    admin: httpx.AsyncClient, engine: AsyncEngine
) -> None:
    at_once = await admin.get(VERIFY, params={"wait_seconds": 0})
    assert (at_once.status_code, at_once.json()["status"]) == (202, "requested")
    custody = await take_up(engine)
    assert custody is not None
    run_id = custody.run.id
    slow = await admin.get(VERIFY, params={"wait_seconds": 0.1, "audit_id": run_id})
    assert (slow.status_code, slow.headers["Retry-After"]) == (202, "2")
    assert slow.json()["audit_id"] == run_id == at_once.json()["audit_id"]
    assert (slow.json()["status"], slow.json()["compared"]) == ("running", 0)
    assert f"?audit_id={run_id}" in slow.json()["message"]
    await carry_out(custody, interrupted=never())
    assert (await verified(admin, audit_id=run_id))["verdict"] == "drift"


async def test_one_that_waits_behind_another_audit_is_not_taken_for_abandoned(
    admin: httpx.AsyncClient, engine: AsyncEngine, seeded: asyncpg.Connection
) -> None:
    await admin.get(VERIFY, params={"wait_seconds": 0})
    await take_up(engine)
    answer = await admin.get(VERIFY, params={"wait_seconds": 0})
    assert (answer.status_code, answer.json()["audit_id"]) == (202, 2)
    await seeded.execute("UPDATE audit_runs SET requested_at = requested_at - interval '1 hour'")
    answer = await admin.get(VERIFY, params={"wait_seconds": 0, "audit_id": 2})
    assert (answer.status_code, answer.json()["audit_id"]) == (202, 2)
    assert "waits for its turn" in answer.json()["message"]
    await seeded.execute("UPDATE audit_runs SET heartbeat_at = heartbeat_at - interval '1 hour'")
    for audit_id in (1, 2):  # its worker has died
        query = {"wait_seconds": 0, "audit_id": audit_id}
        assert (await admin.get(VERIFY, params=query)).status_code == 503


async def test_requests_at_once_share_the_audit_that_has_not_begun(
    admin: httpx.AsyncClient, engine: AsyncEngine, seeded: asyncpg.Connection
) -> None:
    async with engine.begin() as connection:
        for options in (AuditOptions(project_id=P1), AuditOptions(repair=True)):
            await request(connection, options, "command")  # not what is asked for
    answers = await asyncio.gather(*(admin.get(VERIFY, params={"wait_seconds": 0}) for _ in range(8)))
    assert {answer.json()["audit_id"] for answer in answers} == {3}
    requested = await seeded.fetch("SELECT requested_by, project_id, repair FROM audit_runs ORDER BY id")
    assert [tuple(row) for row in requested][2:] == [("admin", None, False)]
    await seeded.execute("UPDATE audit_runs SET status = 'running', started_at = now(), heartbeat_at = now()")
    assert (await admin.get(VERIFY, params={"wait_seconds": 0})).json()["audit_id"] == 4


async def test_waiting_holds_no_connection(
    admin: httpx.AsyncClient,
    admin_app: FastAPI,
    engine: AsyncEngine,
    seeded: asyncpg.Connection,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(verification, "POLL_SECONDS", 0.5)
    ask = {"wait_seconds": 60}
    waiting = [asyncio.create_task(admin.get(VERIFY, params=ask)) for _ in range(ADMIN_PLACES)]
    await until(seeded, "SELECT count(*) FROM audit_runs", 1)
    await until_full(admin_app.state.collection_sync.bulkheads.admin)
    for _ in range(5):
        assert (await admin.get(ALL, headers=OWNER)).status_code == 200
    assert not any(task.done() for task in waiting)
    async with auditor(engine):
        assert {(await task).status_code for task in waiting} == {200}


async def test_an_audit_of_one_project_verifies_nothing(
    admin: httpx.AsyncClient, engine: AsyncEngine
) -> None:
    async with engine.begin() as connection:
        limited = await request(connection, AuditOptions(project_id=P1), "command")
    for audit_id in (limited, 999):
        answer = await admin.get(VERIFY, params={"audit_id": audit_id, "wait_seconds": 0})
        assert (answer.status_code, answer.json()) == (404, {"detail": "Audit not found"})
    for query in ({"audit_id": 0}, {"audit_id": 2**63}, {"wait_seconds": -1}, {"wait_seconds": "nan"}):
        assert (await admin.get(VERIFY, params=query)).status_code == 422


async def test_a_backfill_is_started_for_the_workers_with_the_options_given(
    admin: httpx.AsyncClient, seeded: asyncpg.Connection, redis_url: str
) -> None:
    answer = await admin.post(BACKFILL, json={"project_id": P1, "rate": 7, "max_pending": 9})
    assert answer.status_code == 202
    run = answer.json()
    expected = {"status": "running", "in_worker": True, "project_id": P1, "rate": 7, "max_pending": 9}
    assert run.items() >= expected.items()
    assert run["planned"] == await seeded.fetchval(
        "SELECT count(*) FROM collections WHERE project_id = $1", P1
    )
    assert run["outcome"] == f"Backfill 1 is started: workers look at {run['planned']} collections."
    assert (await admin.get(BACKFILL)).json().items() <= run.items()
    async with Redis.from_url(redis_url) as redis:
        await rung(redis)


async def test_one_backfill_at_a_time_and_the_answer_names_the_one_there_is(
    admin: httpx.AsyncClient, seeded: asyncpg.Connection
) -> None:
    answers = await asyncio.gather(*(admin.post(BACKFILL, json={}) for _ in range(5)))
    (run,) = [answer.json() for answer in answers if answer.status_code == 202]
    refused = [answer for answer in answers if answer.status_code == 409]
    assert len(refused) == 4
    assert {answer.json()["detail"] for answer in refused} == {"Backfill 1 is not finished: it is running."}
    assert all(answer.json()["run"]["id"] == run["id"] for answer in refused)
    assert await seeded.fetchval("SELECT count(*) FROM backfill_runs") == 1


async def test_a_backfill_of_no_project_or_with_options_that_make_no_sense_is_not_started(
    admin: httpx.AsyncClient, seeded: asyncpg.Connection
) -> None:
    unknown = await admin.post(BACKFILL, json={"project_id": "unknown"})
    assert (unknown.status_code, unknown.json()) == (404, {"detail": "Project not found"})
    invalid: list[dict[str, object]] = [
        {"rate": 0},
        {"rate": 2**31},
        {"max_pending": 0},
        {"max_pending": None},
        {"project_id": "a\0b"},
        {"max_pendng": 5},
    ]
    for body in invalid:
        assert (await admin.post(BACKFILL, json=body)).status_code == 422, body
    assert await seeded.fetchval("SELECT count(*) FROM backfill_runs") == 0


async def test_a_backfill_is_paused_resumed_and_cancelled(
    admin: httpx.AsyncClient, engine: AsyncEngine
) -> None:
    for order in ("pause", "resume", "cancel"):
        nothing = await admin.post(f"{BACKFILL}/{order}")
        assert nothing.status_code == 409
        assert nothing.json() == {
            "detail": "There is no unfinished backfill: none has run yet.",
            "run": None,
        }
    await admin.post(BACKFILL)
    statuses = [
        (answer.status_code, answer.json()["status"])
        for order in ("pause", "pause", "resume", "cancel")
        for answer in [await admin.post(f"{BACKFILL}/{order}")]
    ]
    assert statuses == [(200, "paused"), (200, "paused"), (200, "running"), (200, "cancelled")]
    over = await admin.post(f"{BACKFILL}/cancel")
    assert (over.status_code, over.json()["run"]["status"]) == (409, "cancelled")

    await admin.post(BACKFILL)
    assert await take_up_backfill(engine) is not None
    driven = await admin.post(f"{BACKFILL}/resume")
    assert driven.status_code == 409
    assert driven.json()["run"]["is_driven"]
    assert "is being driven by" in driven.json()["detail"]


async def test_a_real_worker_carries_out_what_is_ordered(
    admin: httpx.AsyncClient, seeded: asyncpg.Connection, database_url: str, redis_url: str
) -> None:
    async with running_worker(environment(database_url, redis_url)):
        assert (await admin.post(BACKFILL, json={})).status_code == 202
        async with asyncio.timeout(HANG_SECONDS):
            while (await admin.get(BACKFILL)).json()["status"] != "finished":
                await asyncio.sleep(0.05)
            while await seeded.fetchval("SELECT count(*) FROM outbox_events"):
                await asyncio.sleep(0.05)
        assert (await verified(admin))["match"]
