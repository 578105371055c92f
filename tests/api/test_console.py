"""The console's routes: the status, one collection, acts and their record, and the parts of its page."""

import asyncio
import json
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import asyncpg
import httpx
import pytest
from fastapi import FastAPI
from pydantic import SecretStr
from sqlalchemy.ext.asyncio import AsyncEngine
from structlog.testing import capture_logs

from api.admin import console
from api.admin.acts import NEWEST
from api.admin.steps import steps_of
from api.gate.admission import ADMIN_PLACES
from api.main import create_app
from shared.settings import Settings
from shared.status.looked import looked
from shared.status.machine import as_json
from shared.status.session import CAREFULLY
from shared.status.turns import TURNS
from shared.verdict import commands
from tests.api.clients import ALL, OWNER, P1, started
from tests.api.recording import NAMES, Json
from tests.api.test_plans import FILL
from tests.draining import drain
from tests.worker.events import append_raw

TOKEN = "administrators only"
CREDENTIALS = {"X-Admin-Token": TOKEN, "X-Actor": "Ada"}
ORDERS = ("backfill", "backfill/pause", "backfill/resume", "backfill/cancel", "audit", "repair")
PAGE = ("/admin/console", "/admin/console/style.css", "/admin/console/script.js")
SEED = NAMES["C_SEED"]


@pytest.fixture
def opened(settings: Settings) -> Settings:
    return settings.model_copy(update={"admin_token": SecretStr(TOKEN)})


@pytest.fixture
def admin_app(opened: Settings) -> FastAPI:
    return create_app(opened)


@pytest.fixture
async def admin(admin_app: FastAPI, seeded: asyncpg.Connection) -> AsyncIterator[httpx.AsyncClient]:
    del seeded
    async with started(admin_app) as client:
        client.headers.update(CREDENTIALS)
        yield client


async def die(engine: AsyncEngine, sql: asyncpg.Connection, *collections: str) -> list[int]:
    """Let an event of each collection die of the same cause; return the letters' ids."""
    ids = [await append_raw(sql, name, project_id=P1, created_at="tomorrow-ish") for name in collections]
    await drain(engine)
    return ids


async def recorded(sql: asyncpg.Connection) -> list[tuple[str, str, str | None, str]]:
    rows = await sql.fetch("SELECT actor, act, subject, outcome FROM operator_acts ORDER BY acted_at")
    return [tuple(row) for row in rows]


def timeless(answer: Json) -> Json:
    """Leave out what moves on from one look to the next."""
    left = {key: value for key, value in answer.items() if key not in {"now", "steps", "figures"}}
    return json.loads(json.dumps(left))


async def test_the_status_is_what_the_command_prints_with_the_acts_that_go_on(
    admin: httpx.AsyncClient, engine: AsyncEngine, seeded: asyncpg.Connection
) -> None:
    await seeded.execute("INSERT INTO worker_processes (name) VALUES ('host:1')")
    answer = await admin.get("/admin/status")
    assert answer.status_code == 200
    status = answer.json()
    assert timeless(status) == timeless(as_json(*await looked(engine)))
    assert (status["verdict"], status["may_go_on"]) == ("not_backfilled", False)
    assert status["next_steps"] == [commands.BACKFILL]
    assert status["steps"] == [{"command": commands.BACKFILL, "act": "backfill.start", "letter_id": None}]
    figures = {figure["name"]: figure["value"] for figure in status["figures"]}
    assert figures["dead letters"] == "0 open"
    assert figures["workers"].startswith("1 alive (host:1")


async def test_what_others_wrote_into_the_figures_is_made_printable(
    admin: httpx.AsyncClient, seeded: asyncpg.Connection
) -> None:
    await seeded.execute("INSERT INTO worker_processes (name) VALUES (E'host\\x1b[2J')")
    figures = (await admin.get("/admin/status")).json()["figures"]
    assert all(figure["value"].isprintable() for figure in figures)


async def test_while_the_database_is_away_that_is_the_verdict(opened: Settings) -> None:
    nowhere = SecretStr("postgresql+asyncpg://nobody@127.0.0.1:1/nothing")
    async with started(create_app(opened.model_copy(update={"database_url": nowhere}))) as client:
        answer = await client.get("/admin/status", headers=CREDENTIALS)
        assert (answer.status_code, answer.json()["verdict"]) == (200, "database_away")
        assert answer.json()["figures"] == []
        for path in ("acts", "dead-letters/groups", "collections/x"):
            assert (await client.get(f"/admin/{path}", headers=CREDENTIALS)).status_code == 503


@pytest.mark.parametrize(
    ("spoil", "word"),
    [
        ("SELECT setval('outbox_events_id_seq', 1)", "unfit"),
        ("ALTER DATABASE {name} SET default_transaction_read_only = on", "read_only"),
    ],
)
async def test_the_status_is_shown_of_a_server_on_which_nothing_can_be_written(
    opened: Settings, seeded: asyncpg.Connection, engine: AsyncEngine, spoil: str, word: str
) -> None:
    await die(engine, seeded, SEED)
    await append_raw(seeded, SEED)
    name = await seeded.fetchval("SELECT current_database()")
    await seeded.execute(spoil.format(name=f'"{name}"'))
    async with started(create_app(opened)) as client:
        client.headers.update(CREDENTIALS)
        assert (await client.get("/admin/status")).json()["verdict"] == word
        assert (await client.get("/admin/dead-letters/groups")).json()["total"] == 1
        assert (await client.get("/admin/acts")).json() == []
        assert (await client.get(f"/admin/collections/{SEED}")).status_code == 200
        assert (await client.post("/admin/audit")).status_code == 503


async def test_many_consoles_share_a_look_and_a_locked_table_holds_neither_them_nor_users_up(
    admin: httpx.AsyncClient, seeded: asyncpg.Connection, database_url: str
) -> None:
    holder = await asyncpg.connect(database_url)
    transaction = holder.transaction()
    await transaction.start()
    await holder.execute("LOCK TABLE project_collections, worker_processes IN ACCESS EXCLUSIVE MODE")
    consoles = [asyncio.create_task(admin.get("/admin/status")) for _ in range(ADMIN_PLACES)]
    assert (await admin.get(ALL, headers=OWNER)).status_code == 200
    answers = [(await console).json() for console in consoles]
    await transaction.rollback()
    await holder.close()
    assert {answer["unknown"]["workers"] for answer in answers} == {"another session locks its table"}
    sessions = "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'collection-sync status'"
    assert await seeded.fetchval(sessions) == 1


async def test_one_collection_is_shown_whole_and_why(
    admin: httpx.AsyncClient, engine: AsyncEngine, seeded: asyncpg.Connection
) -> None:
    (letter,) = await die(engine, seeded, SEED)
    found = (await admin.get(f"/admin/collections/{SEED}")).json()
    assert (found["collection_id"], found["legacy"]["collection_id"]) == (SEED, SEED)
    assert [row["id"] for row in found["letters"]] == [str(letter)]
    assert found["verdict"] in {"dead", "in_sync"}
    missing = (await admin.get("/admin/collections/nowhere")).json()
    assert (missing["verdict"], missing["may_go_on"]) == ("no_such_collection", False)
    assert (await admin.get("/admin/collections/%00")).status_code == 422


async def test_each_act_is_recorded_with_its_actor_and_time_and_logged_and_says_what_it_did(
    admin: httpx.AsyncClient, engine: AsyncEngine, seeded: asyncpg.Connection
) -> None:
    letters = await die(engine, seeded, SEED, NAMES["C_NOLINK"], "nowhere")
    choices: list[tuple[str, Json]] = [
        *((order, None) for order in ORDERS),
        (f"dead-letters/{letters[0]}/replay", None),
        ("dead-letters/replay", {"ids": letters[:2]}),
        (f"dead-letters/{letters[2]}/discard", None),
        ("dead-letters/discard", {"ids": letters}),
    ]
    outcomes, named = [], []
    with capture_logs() as lines:
        for path, body in choices:
            answer = await admin.post(f"/admin/{path}", json=body)
            assert answer.is_success, answer.text
            outcomes.append(answer.json()["outcome"])
            named.append(answer.headers["X-Request-ID"])
        await admin.get("/admin/verify-phase1-migration", params={"wait_seconds": 0})
    rows = await recorded(seeded)
    assert [row[1] for row in rows] == [
        "backfill.start", "backfill.pause", "backfill.resume", "backfill.cancel", "audit.request",
        "audit.repair", "letters.replay", "letters.replay", "letters.discard", "letters.discard",
        "audit.request",
    ]  # fmt: skip
    assert {row[0] for row in rows} == {"Ada"}
    assert [row[3] for row in rows][:-1] == outcomes
    assert outcomes[4:6] == ["Audit 1 is requested.", "Audit 2 is requested; it repairs what it finds."]
    assert outcomes[7] == "1 dead letter is replayed; 1 is not open any more."
    assert rows[-1][3] == "Audit 1 was requested already and has not begun."
    logged = [line for line in lines if line["event"] == "operator_acted"]
    assert [(line["actor"], line["act"], line["subject"], line["outcome"]) for line in logged] == rows
    assert [line["request_id"] for line in logged][:-1] == named
    age = "SELECT max(now() - acted_at) < interval '5 minutes' FROM operator_acts"
    assert await seeded.fetchval(age)
    assert TOKEN not in json.dumps(lines)


async def test_an_act_that_cannot_be_recorded_is_not_carried_out(
    admin: httpx.AsyncClient, engine: AsyncEngine, seeded: asyncpg.Connection
) -> None:
    (letter,) = await die(engine, seeded, SEED)
    await seeded.execute("ALTER TABLE operator_acts ADD CONSTRAINT nothing CHECK (false)")
    for path in (
        "backfill",
        "audit",
        "repair",
        f"dead-letters/{letter}/replay",
        f"dead-letters/{letter}/discard",
    ):
        assert (await admin.post(f"/admin/{path}")).status_code == 500
    done = "SELECT (SELECT count(*) FROM backfill_runs) + (SELECT count(*) FROM audit_runs)"
    assert await seeded.fetchval(done) == 0
    assert await seeded.fetchval("SELECT state FROM outbox_dead_letters") == "dead"
    assert await seeded.fetchval("SELECT count(*) FROM outbox_events") == 0


async def test_twice_the_same_act_is_harmless(
    admin: httpx.AsyncClient, engine: AsyncEngine, seeded: asyncpg.Connection
) -> None:
    (letter,) = await die(engine, seeded, SEED)
    before = await seeded.fetchval("SELECT count(*) FROM outbox_events")
    statuses = [
        (await admin.post(f"/admin/{path}")).status_code
        for path in (*ORDERS, f"dead-letters/{letter}/replay", f"dead-letters/{letter}/discard")
        for _ in range(2)
    ]
    assert statuses == [202, 409, 200, 200, 200, 200, 200, 409, 202, 202, 202, 202, 200, 409, 409, 409]
    assert await seeded.fetchval("SELECT count(*) FROM backfill_runs") == 1
    requested = await seeded.fetch("SELECT repair, requested_by FROM audit_runs ORDER BY id")
    assert [tuple(row) for row in requested] == [(False, "admin"), (True, "admin")]
    assert await seeded.fetchval("SELECT count(*) FROM outbox_events") == before + 1
    assert await seeded.fetchval("SELECT count(*) FROM operator_acts") == 11  # what was refused did nothing


async def test_two_operators_at_once_replay_a_letter_once(
    admin: httpx.AsyncClient, engine: AsyncEngine, seeded: asyncpg.Connection
) -> None:
    letters = await die(engine, seeded, SEED)
    answers = await asyncio.gather(
        *(
            admin.post("/admin/dead-letters/replay", json={"ids": letters}, headers={"X-Actor": name})
            for name in ("Ada", "Grace")
        )
    )
    assert sorted(answer.json()["replayed"] for answer in answers) == [0, 1]
    assert await seeded.fetchval("SELECT count(*) FROM outbox_events") == 1


FOREIGN = [
    {"Sec-Fetch-Site": "cross-site"},
    {"Sec-Fetch-Site": "same-site"},
    {"Sec-Fetch-Site": "cross-site", "Origin": "http://api.example"},
    {"Origin": "https://evil.example"},
    {"Origin": "null"},
]
OWN = [
    {},
    {"Sec-Fetch-Site": "same-origin"},
    {"Sec-Fetch-Site": "none"},
    {"Sec-Fetch-Site": "same-origin", "Origin": "https://behind.proxy"},
    {"Origin": "http://api.example"},
]


@pytest.mark.parametrize("headers", FOREIGN)
async def test_a_page_of_another_site_does_nothing_even_with_the_token(
    admin: httpx.AsyncClient, seeded: asyncpg.Connection, headers: dict[str, str]
) -> None:
    for order in (*ORDERS, "phase/advance", "phase/back"):
        answer = await admin.post(f"/admin/{order}", headers=headers)
        assert (answer.status_code, answer.json()) == (403, {"detail": "Not for pages of other sites"})
    assert (await admin.get("/admin/verify-phase1-migration", headers=headers)).status_code == 403
    assert await recorded(seeded) == []
    without = await admin.post("/admin/audit", headers={**headers, "X-Admin-Token": "x"})
    assert without.status_code == 401  # the token comes first


@pytest.mark.parametrize("headers", OWN)
async def test_our_own_page_and_clients_that_are_no_browsers_act(
    admin: httpx.AsyncClient, headers: dict[str, str]
) -> None:
    assert (await admin.post("/admin/audit", headers=headers)).status_code == 202


@pytest.mark.parametrize("name", ["", "  ", "x" * 201, "a\tb", "\u202eadA", "\x7f"])
async def test_a_name_that_is_not_fit_for_the_record_acts_not(
    admin: httpx.AsyncClient, seeded: asyncpg.Connection, name: str
) -> None:
    answer = await admin.post("/admin/backfill", headers=[(b"X-Actor", name.encode())])
    assert answer.status_code == 422
    assert "1 to 200 printable characters" in answer.json()["detail"][0]["msg"]
    assert await seeded.fetchval("SELECT count(*) FROM backfill_runs") == 0
    assert await recorded(seeded) == []


async def test_a_name_may_be_written_in_any_script_and_who_gives_none_is_unnamed(
    admin: httpx.AsyncClient, seeded: asyncpg.Connection
) -> None:
    await admin.post("/admin/audit", headers=[(b"X-Actor", " Zoë 山田 ".encode())])
    del admin.headers["X-Actor"]
    await admin.post("/admin/repair")
    assert [row[0] for row in await recorded(seeded)] == ["Zoë 山田", "unnamed"]
    bad = await admin.post("/admin/audit", headers=[(b"X-Actor", b"\xff")])
    assert bad.status_code == 422


async def test_acts_are_listed_newest_first_and_page_by_page(admin: httpx.AsyncClient) -> None:
    for order in ORDERS:
        await admin.post(f"/admin/{order}")
    acts = (await admin.get("/admin/acts")).json()
    assert [act["act"] for act in acts] == [
        "audit.repair", "audit.request", "backfill.cancel", "backfill.resume", "backfill.pause",
        "backfill.start",
    ]  # fmt: skip
    page = (await admin.get("/admin/acts", params={"limit": 2})).json()
    older = (await admin.get("/admin/acts", params={"before": page[-1]["acted_at"]})).json()
    assert page + older == acts


async def test_no_statement_of_the_console_reads_a_table_to_its_end(
    seeded: asyncpg.Connection, engine: AsyncEngine
) -> None:
    await seeded.execute(FILL)
    await seeded.execute(
        "UPDATE outbox_dead_letters SET state = 'discarded', closed_at = now() WHERE id < -500"
    )
    await seeded.execute(
        "INSERT INTO operator_acts (acted_at, actor, act, outcome)"
        " SELECT now() - n * interval '1 minute', 'Ada', 'audit.request', 'done'"
        " FROM generate_series(1, 20000) n; ANALYZE"
    )
    await seeded.execute(
        "INSERT INTO phase_turns (epoch, from_phase, to_phase, kind, actor, forced, gates)"
        " SELECT n, 'outbox', 'verified', 'advance', 'Ada', false, '[]' FROM generate_series(1, 20000) n;"
        "ANALYZE phase_turns"
    )
    newest = NEWEST.bindparams(before=None, most=50)
    async with seeded.transaction():
        await seeded.execute(str(CAREFULLY))
        for statement in (newest, TURNS.bindparams(epoch=20_000, most=20)):
            literal = statement.compile(dialect=engine.dialect, compile_kwargs={"literal_binds": True})
            plan = "\n".join(row[0] for row in await seeded.fetch(f"EXPLAIN {literal}"))
            assert "Seq Scan" not in plan, plan


def test_the_console_knows_each_command_that_it_can_carry_out() -> None:
    letter = f"{commands.LETTERS} replay --wait 7"
    typed = [commands.BACKFILL, commands.RESUME, commands.AUDIT, commands.REPAIR, letter]
    typed += [f"{commands.LETTERS} discard 8", commands.WORKER, f"{commands.LETTERS} show 7"]
    typed += [commands.ADVANCE, commands.BACK, commands.PHASE]
    assert [(step.act, step.letter_id) for step in steps_of(typed)] == [
        ("backfill.start", None), ("backfill.resume", None), ("audit.request", None), ("audit.repair", None),
        ("letters.replay", 7), ("letters.discard", 8), (None, None), (None, None), ("phase.advance", None),
        ("phase.back", None), (None, None),
    ]  # fmt: skip


async def test_the_page_is_there_where_a_token_is_and_holds_no_data(
    admin: httpx.AsyncClient, client: httpx.AsyncClient
) -> None:
    for path in PAGE:
        answer = await admin.get(path, headers={"X-Admin-Token": "", "Sec-Fetch-Site": "cross-site"})
        assert answer.status_code == 200
        policy = answer.headers["Content-Security-Policy"]
        assert policy.startswith("default-src 'none'; script-src 'self';")
        assert "unsafe" not in policy
        assert "Set-Cookie" not in answer.headers
        hidden = await client.get(path)
        assert (hidden.status_code, hidden.json()) == (404, {"detail": "Not Found"})
    assert (await admin.get("/admin/console/")).headers["Location"] == "../console"


def sources() -> Iterator[str]:
    for path in sorted(Path(next(iter(console.__path__))).rglob("*")):
        if path.suffix in {".html", ".css", ".js"}:
            yield path.read_text(encoding="utf-8")


def test_the_page_loads_nothing_from_elsewhere_and_parses_no_text_as_html() -> None:
    for text in sources():
        for word in (
            "https://",
            "innerHTML",
            "insertAdjacent",
            "document.write",
            "eval(",
            " style=",
            "cookie =",
        ):
            assert word not in text
        assert text.replace("http://www.w3.org/2000/svg", "").count("http://") == 0
