"""At each step of a migration's life page, console, terminal, machine's line and exit status agree."""

import signal

import asyncpg
import pytest
from sqlalchemy.engine import make_url

from deploy.local.valkey import Valkey
from tests.lives.voices import Life
from tests.phase1.script import SCRIPT
from tests.processes import running

BY_HAND = "UPDATE project_collections SET research_context = 'by hand' WHERE collection_id = 'old-7'"
REFUSE = """
    ALTER TABLE project_collections
    ADD CONSTRAINT refuses CHECK (research_context <> 'refused') NOT VALID
"""
ACCEPT = "ALTER TABLE project_collections DROP CONSTRAINT refuses"
OPEN_LETTER = "SELECT id FROM outbox_dead_letters WHERE state = 'dead'"
LOCK = "LOCK TABLE project_collections IN ACCESS EXCLUSIVE MODE"
IS_NAMED = "text => document.getElementById('go-on-reasons').textContent.includes(text)"
IS_GONE = "text => !document.getElementById('go-on-reasons').textContent.includes(text)"


@pytest.mark.slow
async def test_five_voices_agree_from_the_first_start_to_a_rollback_and_forward_again(life: Life) -> None:
    async with life.worker():
        await life.agree("not_backfilled")
        with running(["-m", "worker.backfill", "--rate", "5"], life.env) as driver:
            assert (await life.agree("backfilling")).startswith("Backfilling ")
            await life.console.act("Pause… the backfill", "Pause")
            await driver.exit_code()
        assert (await life.agree("backfill_paused")).startswith("Backfill paused at ")
        await life.type("-m", "worker.backfill", "--set-rate", "none")
        await life.type("-m", "worker.backfill", "--resume", "--wait")
        await life.agree("in_sync")
    await life.agree("stopped")
    await life.type(SCRIPT, "--rollback", "--yes")
    await life.agree("rolled_back")
    async with life.worker():
        await life.agree("rolled_back")
        await life.type("-m", "worker.backfill", "--wait")
        await life.agree("in_sync")


@pytest.mark.wide
@pytest.mark.slow
async def test_five_voices_agree_on_drift_and_its_repair_and_on_a_letter_whose_replay_dies_again(
    life: Life,
) -> None:
    async with life.worker():
        await life.type("-m", "worker.backfill", "--wait")
        await life.sql.execute(BY_HAND)
        await life.type("-m", "worker.audit", status=1)
        assert (await life.agree("drift")).startswith("Drift: 1 pair differs")
        await life.type("-m", "worker.audit", "--repair")
        await life.agree("in_sync")

        await life.sql.execute(REFUSE)
        await life.describe("old-9", "refused")
        assert "then replay" in await life.agree("dead_letters")
        letter = await life.sql.fetchval(OPEN_LETTER)
        await life.type("-m", "worker.dead_letters", "replay", "--wait", str(letter), status=1)
        assert "a replay that died again" in await life.agree("dead_letters")
        await life.sql.execute(ACCEPT)
        letter = await life.sql.fetchval(OPEN_LETTER)
        await life.type("-m", "worker.dead_letters", "replay", "--wait", str(letter))
        await life.agree("in_sync")


@pytest.mark.wide
@pytest.mark.slow
async def test_five_voices_agree_on_locks_and_outages_and_the_page_is_blind_where_a_worker_is_gone(
    life: Life, own_valkey: Valkey
) -> None:
    async with life.worker() as worker:
        await life.type("-m", "worker.backfill", "--wait")
        await life.agree("in_sync")
        await _locked(life)
        await _read_only(life)
        await _without_redis(life, own_valkey)

        worker.signal(signal.SIGSTOP)
        await life.agree("stopped", on_the_page="blind")
        worker.signal(signal.SIGCONT)
        await life.agree("in_sync")
        worker.signal(signal.SIGKILL)
        await worker.exit_code()
        assert "fell silent without a word" in await life.agree("stopped", on_the_page="blind")
    async with life.worker():
        await life.agree("in_sync")


async def _locked(life: Life) -> None:
    holder = await asyncpg.connect(life.env["DATABASE_URL"], server_settings={"application_name": "psql"})
    async with holder.transaction():
        await holder.execute(LOCK)
        await life.describe("old-12", "waits")
        said = await life.agree("stuck")
        assert said.startswith(f"Stuck: held by pid {holder.get_server_pid()} (psql) for ")
    await holder.close()
    await life.agree("in_sync")


async def _read_only(life: Life) -> None:
    name = make_url(life.env["DATABASE_URL"]).database
    await life.sql.execute(f"ALTER DATABASE {name} SET default_transaction_read_only = on")
    await life.agree("read_only")
    await life.sql.execute(f"ALTER DATABASE {name} RESET default_transaction_read_only")
    await life.agree("in_sync")


async def _without_redis(life: Life, valkey: Valkey) -> None:
    """Nothing is out of sync without it: the page, which alone is told of it, names it beside the answer."""
    valkey.stop()
    await life.page.until(IS_NAMED, "Redis is away")
    await life.describe("old-15", "without a ring")
    await life.agree("in_sync")
    valkey.start()
    await life.page.until(IS_GONE, "Redis is away")
