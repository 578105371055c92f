"""What differs because its event died is said so, and repaired only once that makes sense, or by order."""

import asyncio

import asyncpg
import pytest
from sqlalchemy.ext.asyncio import AsyncEngine
from structlog.testing import capture_logs

from shared.audit_runs import AuditOptions, AuditRun
from tests.audit.pairs import audited, put_legacy, put_pair, put_target
from tests.audit.test_command import run_audit
from tests.audit.test_repair import relaying
from tests.dead_letters.test_replay import replayed
from tests.draining import drain
from tests.drift import drift
from tests.processes import environment
from tests.worker.events import append_raw
from worker.audit.findings import first_findings
from worker.audit.run import audit

LETTERS = "SELECT id FROM outbox_dead_letters WHERE closed_at IS NULL ORDER BY id"
REFUSE = (
    "ALTER TABLE project_collections ADD CONSTRAINT fussy CHECK (collection_id NOT LIKE 'dead%') NOT VALID"
)


async def died(engine: AsyncEngine, sql: asyncpg.Connection, collection_id: str) -> int:
    """Put a collection that the target refuses, and let its event die; return the letter."""
    await put_legacy(sql, collection_id)
    letter = await append_raw(sql, collection_id)
    await drain(engine)
    assert await sql.fetchval("SELECT state FROM outbox_dead_letters WHERE id = $1", letter) == "dead"
    return letter


@pytest.fixture
async def letter(engine: AsyncEngine, seeded: asyncpg.Connection) -> int:
    await seeded.execute(REFUSE)
    return await died(engine, seeded, "dead")


async def audited_with_dead(engine: AsyncEngine) -> AuditRun:
    options = AuditOptions(repair=True)
    interrupted = asyncio.Event()
    return await audit(
        engine, options, requested_by="command", interrupted=interrupted, repair_dead=True
    )  # fmt: skip


async def test_a_finding_whose_event_died_names_the_letter_and_the_sentence_what_to_do(
    engine: AsyncEngine, letter: int
) -> None:
    with capture_logs() as lines:
        one = await audited(engine)
    (line,) = [line for line in lines if line["event"] == "audit_finding"]
    assert (line["collection_id"], line["dead_letter"]) == ("dead", letter)
    (finding,) = await first_findings(engine, one.id, 10)
    assert finding.dead_letter == letter
    assert one.verdict == "drift"
    assert one.error == (
        f"Of 1 the event died (dead letter {letter}), and --repair passes over it:"
        f" see `python -m worker.dead_letters show {letter}`, fix what the reason names,"
        f" then `python -m worker.dead_letters replay {letter}`."
    )


async def test_a_repair_passes_over_what_died_and_repairs_the_others(
    engine: AsyncEngine, seeded: asyncpg.Connection, letter: int
) -> None:
    await put_legacy(seeded, "fine")
    for _ in range(2):
        async with relaying(engine):
            with capture_logs() as lines:
                one = await audited(engine, repair=True)
        assert (one.verdict, one.error is not None) == ("drift", True)
        assert f"Of 1 the event died (dead letter {letter})" in (one.error or "")
        (appended,) = [line for line in lines if line["event"] == "audit_repair_appended"]
        assert (appended["passed_over"], appended["without_collection"]) == (1, 0)
    assert one.found == 1
    assert await drift(seeded) == ["dead"]
    assert [row["id"] for row in await seeded.fetch(LETTERS)] == [letter]  # no circle: it is the same one


async def test_once_the_cause_is_fixed_a_replay_brings_the_pair_back(
    engine: AsyncEngine, seeded: asyncpg.Connection, letter: int
) -> None:
    await seeded.execute("ALTER TABLE project_collections DROP CONSTRAINT fussy")
    await replayed(engine, letter)
    await drain(engine)
    assert (await audited(engine)).verdict == "in_sync"


async def test_by_order_it_repairs_what_died_as_well_and_names_the_letter_of_what_died_again(
    engine: AsyncEngine, seeded: asyncpg.Connection, letter: int
) -> None:
    async with relaying(engine):
        one = await audited_with_dead(engine)
    ((again,),) = await seeded.fetch(LETTERS)
    assert again > letter
    assert one.verdict == "drift"
    assert one.error == (
        "1 still differ because their event died; for the reason:"
        f" `python -m worker.dead_letters show {again}`."
    )
    await seeded.execute("ALTER TABLE project_collections DROP CONSTRAINT fussy")
    async with relaying(engine):
        assert (await audited_with_dead(engine)).verdict == "repaired"


@pytest.mark.usefixtures("letter")
async def test_what_drifted_beside_a_closed_letter_is_repaired(
    engine: AsyncEngine, seeded: asyncpg.Connection
) -> None:
    await seeded.execute("UPDATE outbox_dead_letters SET state = 'discarded', closed_at = now()")
    await seeded.execute("ALTER TABLE project_collections DROP CONSTRAINT fussy")
    async with relaying(engine):
        assert (await audited(engine, repair=True)).verdict == "repaired"


@pytest.mark.usefixtures("letter")
async def test_a_letter_of_no_collection_excuses_no_row_that_belongs_to_none(
    engine: AsyncEngine, seeded: asyncpg.Connection
) -> None:
    await seeded.execute("SET session_replication_role = replica")
    await put_target(seeded, "nowhere")
    await seeded.execute("UPDATE outbox_dead_letters SET aggregate_id = 'nowhere'")
    await seeded.execute("DELETE FROM collections")
    async with relaying(engine):
        one = await audited(engine, repair=True)
    assert (one.verdict, one.orphaned) == ("drift", 1)
    assert "belong to no collection" in (one.error or "")
    assert "dead letter" not in (one.error or "")


async def test_letters_are_named_as_long_as_they_are_few_and_replayed_with_what_died_like_them_if_not(
    engine: AsyncEngine, seeded: asyncpg.Connection, letter: int
) -> None:
    letters = [letter, await died(engine, seeded, "dead0")]
    both = (await audited(engine)).error or ""
    assert f"replay {letters[0]} {letters[1]}`" in both
    letters += [await died(engine, seeded, f"dead{number}") for number in range(1, 7)]
    many = (await audited(engine)).error or ""
    assert f"Of 8 the event died (dead letters {', '.join(map(str, letters[:5]))} and 3 more)" in many
    assert f"replay --like {letter}`" in many


@pytest.mark.usefixtures("letter")
async def test_the_command_says_which_pairs_died_and_offers_the_repair_only_for_others(
    database_url: str, redis_url: str, seeded: asyncpg.Connection
) -> None:
    env = environment(database_url, redis_url)
    alone = await run_audit(env)
    assert alone.code == 1
    assert alone.stdout.startswith("Drift: 1 missing, 0 mismatched, 0 orphaned. Of 1 the event died")
    assert "Fix" not in alone.stdout
    assert "dead  missing, its event died: dead letter" in alone.stdout
    (finding,) = (await run_audit(env, "--json")).result["findings"]
    assert finding["dead_letter"] is not None
    await put_pair(seeded, "differs", research_context="other")
    both = await run_audit(env)
    assert "Fix the others with --repair." in both.stdout
    wrong = await run_audit(env, "--repair-dead")
    assert (wrong.code, "--repair-dead needs --repair" in wrong.stderr) == (2, True)
