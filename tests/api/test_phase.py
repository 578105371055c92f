"""The cutover's phase over HTTP: what is shown of it, and each turn and each refusal."""

import asyncio
from collections.abc import AsyncIterator
from itertools import pairwise

import asyncpg
import httpx
import pytest
from fastapi import FastAPI
from pydantic import SecretStr
from sqlalchemy.ext.asyncio import AsyncEngine
from structlog.testing import capture_logs

from api.main import create_app
from shared.phase import turn
from shared.phase.phases import ORDER, TITLES, Phase
from shared.settings import Settings
from shared.verdict import commands
from tests.api.clients import started
from tests.legacy_rows import seed
from tests.phase.meeting import COMPARE, COUNT_LOSSES, FIND, LONG_AGO, PHASE, meet_gates
from tests.processes import HANG_SECONDS

TOKEN = "administrators only"
TURNS = "SELECT epoch, from_phase, to_phase, kind, actor, reason, forced FROM phase_turns ORDER BY epoch"
ACTS = "SELECT actor, act, subject, outcome FROM operator_acts ORDER BY acted_at"
WAITING = """
    SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND datname = current_database()
"""
HOLD = "SELECT FROM migration_phase FOR UPDATE"
FORCED = {"force": True, "reason": "The monthly job is rehearsed."}


@pytest.fixture
def opened(settings: Settings) -> Settings:
    return settings.model_copy(update={"admin_token": SecretStr(TOKEN)})


@pytest.fixture
def admin_app(opened: Settings) -> FastAPI:
    return create_app(opened)


@pytest.fixture
async def admin(admin_app: FastAPI, sql: asyncpg.Connection) -> AsyncIterator[httpx.AsyncClient]:
    await seed(sql)
    async with started(admin_app) as client:
        client.headers.update({"X-Admin-Token": TOKEN, "X-Actor": "Ada"})
        yield client


@pytest.fixture
async def holder(admin: httpx.AsyncClient, database_url: str) -> AsyncIterator[asyncpg.Connection]:
    """Another session, which holds the phase's row until it rolls back."""
    del admin
    connection = await asyncpg.connect(database_url)
    await connection.execute(f"BEGIN; {HOLD}")
    yield connection
    await connection.close()


async def turned(sql: asyncpg.Connection) -> list[tuple[object, ...]]:
    return [tuple(row) for row in await sql.fetch(TURNS)]


async def acts(sql: asyncpg.Connection) -> list[tuple[str | None, ...]]:
    return [tuple(row) for row in await sql.fetch(ACTS)]


async def until_waiting(sql: asyncpg.Connection, sessions: int) -> None:
    async with asyncio.timeout(HANG_SECONDS):
        while await sql.fetchval(WAITING) < sessions:
            await asyncio.sleep(0.01)


async def test_at_first_the_gates_say_what_is_missing_and_what_to_type(admin: httpx.AsyncClient) -> None:
    shown = (await admin.get("/admin/phase")).json()
    assert [shown[name] for name in ("phase", "title", "following", "previous", "epoch")] == [
        "legacy_only", "Legacy only", "outbox", None, 0,
    ]  # fmt: skip
    assert list(shown["titles"].items()) == list(TITLES.items())
    assert {gate["name"]: gate["is_met"] for gate in shown["gates"]} == {
        "schema": True, "workers": False, "backlog": True, "writers": False,
    }  # fmt: skip
    assert shown["next_steps"][0] == commands.WORKER
    assert [step["act"] for step in shown["steps"]] == [None] * len(shown["next_steps"])
    assert (shown["losses"], shown["turns"], shown["unknown"]) == (None, [], {})
    assert shown["shadow"]["compared"] == 0
    assert shown["shadow"]["legacy_ms"] is None


async def test_gate_after_gate_the_reads_move_and_come_back_and_each_turn_is_recorded(
    admin: httpx.AsyncClient, engine: AsyncEngine, sql: asyncpg.Connection
) -> None:
    await meet_gates(engine, sql)
    await sql.execute(COUNT_LOSSES)
    outcomes = []
    with capture_logs() as lines:
        for epoch, phase in enumerate(ORDER[1:], 1):
            await sql.execute(LONG_AGO)
            if phase is Phase.READS_MOVED:
                await sql.execute(COMPARE)
            shown = (await admin.get("/admin/phase")).json()
            assert [gate for gate in shown["gates"] if not gate["is_met"]] == []
            assert shown["steps"] == [
                {"command": commands.ADVANCE, "act": "phase.advance", "letter_id": None}
            ]
            answer = await admin.post("/admin/phase/advance", json={"epoch": shown["epoch"]})
            assert answer.status_code == 200, answer.text
            done = answer.json()
            assert (done["phase"], done["epoch"], done["forced"]) == (phase, epoch, False)
            assert done["gates"]
            assert done["losses"]["further_links"] == 12
            outcomes.append(done["outcome"])
        answer = await admin.post("/admin/phase/back", json={"reason": " A report is late. ", "epoch": 4})
    outcomes.append(answer.json()["outcome"])
    assert outcomes[-2:] == [
        "Advanced from Shadow reads to Reads moved. Lists are read from project_collections.",
        "Went back from Reads moved to Shadow reads. Lists are read from collections.",
    ]
    names = [phase.value for phase in ORDER]
    forth = [(epoch, *pair, "advance", "Ada", None, False) for epoch, pair in enumerate(pairwise(names), 1)]
    assert await turned(sql) == [
        *forth,
        (5, "reads_moved", "shadow_reads", "back", "Ada", "A report is late.", False),
    ]
    subjects = [f"phase {name}" for name in [*names[1:], "shadow_reads"]]
    kinds = ["phase.advance"] * 4 + ["phase.back"]
    assert await acts(sql) == [("Ada", *row) for row in zip(kinds, subjects, outcomes, strict=True)]
    logged = [(line["act"], line["outcome"]) for line in lines if line["event"] == "operator_acted"]
    assert logged == list(zip(kinds, outcomes, strict=True))
    assert tuple(await sql.fetchrow(PHASE)) == ("shadow_reads", 5)


async def test_what_was_compared_found_lost_and_turned_is_shown(
    admin: httpx.AsyncClient, engine: AsyncEngine, sql: asyncpg.Connection
) -> None:
    await meet_gates(engine, sql)
    for _ in range(3):
        assert (await admin.post("/admin/phase/advance", json=FORCED)).status_code == 200
    for statement in (COMPARE, COUNT_LOSSES, LONG_AGO):
        await sql.execute(statement)
    await sql.execute(FIND, "p1", "c1")
    await sql.execute("UPDATE shadow_counts SET mismatched = 1, dropped = 7, failed = 2")
    await sql.execute("UPDATE going_back_losses SET counted_at = counted_at - interval '1 hour'")
    shown = (await admin.get("/admin/phase")).json()
    seen = shown["shadow"]
    assert (seen["compared"], seen["mismatched"], seen["dropped"], seen["failed"]) == (1001, 1, 7, 2)
    assert seen["legacy_ms"] == pytest.approx(1000 * 0.5 / 1001)
    assert seen["target_ms"] == pytest.approx(1000 * 0.75 / 1001)
    (found,) = seen["findings"]
    assert (found["project_id"], found["collection_id"], found["kind"]) == ("p1", "c1", "mismatched")
    (gate,) = [gate for gate in shown["gates"] if not gate["is_met"]]
    assert (gate["name"], gate["value"]) == ("shadow", "1,001 lists, 1 mismatch")
    assert 3600 <= shown["losses"]["age_seconds"] < 7200
    newest, _, first = shown["turns"]
    assert (newest["epoch"], newest["to_phase"], newest["forced"]) == (3, "shadow_reads", True)
    assert newest["unmet"] == ["It has stayed so for long enough"]
    # What was forced although nothing stood in the way was not forced; its reason is kept.
    assert (first["forced"], first["unmet"], first["reason"]) == (False, [], FORCED["reason"])
    assert newest["losses"] is None


async def test_unmet_gates_refuse_with_all_gates_and_forcing_is_recorded_with_its_reason(
    admin: httpx.AsyncClient, sql: asyncpg.Connection
) -> None:
    refused = await admin.post("/admin/phase/advance")
    assert refused.status_code == 409
    assert refused.json()["detail"].startswith("Not turned to Outbox. A worker runs: 0 alive (must be: at")
    gates = {gate["name"]: gate["is_met"] for gate in refused.json()["gates"]}
    assert gates == {"schema": True, "workers": False, "backlog": True, "writers": False}
    assert (await acts(sql), await turned(sql)) == ([], [])

    forced = await admin.post("/admin/phase/advance", json={**FORCED, "falls_back": False})
    assert (forced.status_code, forced.json()["forced"]) == (200, True)
    outcome = "Advanced from Legacy only to Outbox. Forced: 2 gates were not met."
    assert await acts(sql) == [("Ada", "phase.advance", "phase outbox", outcome)]
    assert await turned(sql) == [(1, "legacy_only", "outbox", "advance", "Ada", FORCED["reason"], True)]
    shown = (await admin.get("/admin/phase")).json()
    assert (shown["actor"], shown["falls_back"]) == ("Ada", False)


async def test_the_gates_ask_for_what_the_settings_say(
    opened: Settings, sql: asyncpg.Connection, engine: AsyncEngine
) -> None:
    await seed(sql)
    await meet_gates(engine, sql)
    await sql.execute("UPDATE migration_phase SET phase = 'shadow_reads'")
    await sql.execute(COMPARE)
    for least, status in ((1001, 409), (1000, 200)):
        limited = opened.model_copy(update={"phase_lists_compared": least})
        async with started(create_app(limited)) as client:
            client.headers["X-Admin-Token"] = TOKEN
            gates = (await client.get("/admin/phase")).json()["gates"]
            limits = {gate["name"]: gate["limit"] for gate in gates}
            assert limits["shadow"].startswith(f"{least:,} lists or more")
            assert (await client.post("/admin/phase/advance")).status_code == status


@pytest.mark.parametrize(
    "body",
    [
        {"force": True},
        {"force": True, "reason": " \n "},
        {"force": True, "reason": None},
        {"reason": "x" * 1001},
        {"reason": "a\0b"},
        {"epoch": -1},
        {"phase": "reads_moved"},
    ],
)
async def test_what_is_no_order_is_none(
    admin: httpx.AsyncClient, sql: asyncpg.Connection, body: dict[str, object]
) -> None:
    answer = await admin.post("/admin/phase/advance", json=body)
    assert answer.status_code == 422
    assert (await acts(sql), await turned(sql)) == ([], [])


async def test_there_is_no_phase_before_the_first_and_none_behind_the_last(
    admin: httpx.AsyncClient, sql: asyncpg.Connection
) -> None:
    answer = await admin.post("/admin/phase/back")
    assert (answer.status_code, answer.json()) == (
        409, {"detail": "Legacy only is the first phase.", "gates": []},
    )  # fmt: skip
    await sql.execute("UPDATE migration_phase SET phase = 'reads_moved'")
    answer = await admin.post("/admin/phase/advance", json=FORCED)
    assert answer.status_code == 409
    assert answer.json()["detail"] == "Reads moved is the last phase that this system carries out."
    assert await acts(sql) == []


@pytest.mark.parametrize("order", ["advance", "back"])
async def test_two_operators_who_saw_the_same_phase_turn_it_once(
    admin: httpx.AsyncClient,
    sql: asyncpg.Connection,
    holder: asyncpg.Connection,
    monkeypatch: pytest.MonkeyPatch,
    order: str,
) -> None:
    monkeypatch.setattr(turn, "LOCK_TIMEOUT", "60s")
    await holder.execute("UPDATE migration_phase SET phase = 'verified', epoch = 2")
    body = (FORCED if order == "advance" else {}) | {"epoch": 2}
    both = [
        asyncio.create_task(admin.post(f"/admin/phase/{order}", json=body, headers={"X-Actor": name}))
        for name in ("Ada", "Grace")
    ]
    await until_waiting(sql, 2)
    await holder.execute("COMMIT")
    answers = sorted([await one for one in both], key=lambda answer: answer.status_code)
    assert [answer.status_code for answer in answers] == [200, 409]
    title = "Shadow reads" if order == "advance" else "Outbox"
    assert answers[1].json() == {
        "detail": f"The phase was turned since you looked: it is {title} now. Look again.",
        "gates": [],
    }
    assert await sql.fetchval("SELECT epoch FROM migration_phase") == 3
    assert len(await turned(sql)) == len(await acts(sql)) == 1


async def test_while_another_session_holds_the_row_it_is_shown_and_not_turned(
    admin: httpx.AsyncClient,
    sql: asyncpg.Connection,
    holder: asyncpg.Connection,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(turn, "LOCK_TIMEOUT", "10ms")
    for order in ("advance", "back"):
        answer = await admin.post(f"/admin/phase/{order}")
        assert (answer.status_code, answer.headers["Retry-After"]) == (503, "1")
        assert answer.json()["detail"].startswith("Another session holds a lock that the turn needs.")
    assert (await admin.get("/admin/phase")).json()["phase"] == "legacy_only"
    await holder.execute("ROLLBACK")
    assert (await acts(sql), await turned(sql)) == ([], [])


async def test_a_turn_that_cannot_be_recorded_is_none(
    admin: httpx.AsyncClient, sql: asyncpg.Connection
) -> None:
    await sql.execute("ALTER TABLE operator_acts ADD CONSTRAINT nothing CHECK (false)")
    assert (await admin.post("/admin/phase/advance", json=FORCED)).status_code == 500
    assert tuple(await sql.fetchrow(PHASE)) == ("legacy_only", 0)
    assert await turned(sql) == []


async def test_where_the_phase_is_not_known_the_answer_says_why(
    admin: httpx.AsyncClient, sql: asyncpg.Connection, database_url: str
) -> None:
    holder = await asyncpg.connect(database_url)
    await holder.execute("BEGIN; LOCK TABLE migration_phase IN ACCESS EXCLUSIVE MODE")
    shown = (await admin.get("/admin/phase")).json()
    assert (shown["phase"], shown["title"], shown["gates"]) == (None, "Not known", [])
    assert shown["unknown"] == {"cutover": "another session locks its table"}
    await holder.close()

    await sql.execute("DELETE FROM migration_phase")
    shown = (await admin.get("/admin/phase")).json()
    assert shown["unknown"] == {"cutover": "the row of migration_phase is gone"}
    for order in ("advance", "back"):
        answer = await admin.post(f"/admin/phase/{order}")
        assert answer.status_code == 409
        assert "migration_phase is gone" in answer.json()["detail"]
    await sql.execute("UPDATE collection_sync_version SET version_num = '0010'")
    shown = (await admin.get("/admin/phase")).json()
    assert shown["unknown"] == {"cutover": "the migration did not run"}
    assert shown["next_steps"] == [commands.UPGRADE]


async def test_while_the_database_is_away_there_is_no_answer_but_that(opened: Settings) -> None:
    nowhere = SecretStr("postgresql+asyncpg://nobody@127.0.0.1:1/nothing")
    async with started(create_app(opened.model_copy(update={"database_url": nowhere}))) as client:
        client.headers["X-Admin-Token"] = TOKEN
        for method, path in (("GET", ""), ("POST", "/advance"), ("POST", "/back")):
            answer = await client.request(method, f"/admin/phase{path}")
            assert (answer.status_code, answer.headers["Retry-After"]) == (503, "1")
