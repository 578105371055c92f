"""At each step of a migration's life the page from the log says what the status from the database does."""

import asyncio
import contextlib
import signal
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

import asyncpg
import pytest
from sqlalchemy.engine import make_url

from shared.verdict.answer import Answer
from tests.dashboard.scripted import OLD_ROWS, moment_of, quick_worker
from tests.forked import run
from tests.legacy_rows import seed
from tests.log_lines import lines_of
from tests.phase1.script import SCRIPT
from tests.processes import HANG_SECONDS, Running, environment, running
from tests.status.operator import seen
from tests.worker.events import append_raw
from worker.dashboard.log_state import Clock, LogState
from worker.dashboard.page_state import PageState

WRITE = """
    INSERT INTO outbox_events (aggregate_id, event_type, source, payload)
    SELECT collection_id, 'collection.updated', 'api', jsonb_build_object('project_id', project_id,
        'research_context', description, 'created_at', created_at, 'updated_at', updated_at)
    FROM collections WHERE collection_id = 'old-8'
"""
FELL_BACK = """
    WITH turned AS (
        UPDATE migration_phase SET phase = 'shadow_reads', epoch = epoch + 1, since = clock_timestamp()
        RETURNING epoch
    )
    INSERT INTO phase_turns (epoch, from_phase, to_phase, kind, actor, reason, forced, gates)
    SELECT epoch, 'reads_moved', 'shadow_reads', 'fall_back', 'test', 'because of c7', false, '[]' FROM turned
"""


@dataclass
class Life:
    """One database, and the one log that all of its processes write to."""

    env: dict[str, str]
    log: Path
    sql: asyncpg.Connection

    def page(self, until: float = float("inf")) -> PageState:
        """Return what the log says, or said at a moment."""
        lines = [
            (moment_of(parsed), text)
            for text, parsed in zip(self.log.read_text().splitlines(), lines_of(self.log), strict=False)
        ]
        read = [text for at, text in lines if at <= until]
        state = LogState() if until == float("inf") else LogState(lambda: until)
        state.fold(read, Clock())
        return state.page_state(live=True)

    async def both_say(self, word: str, on_the_page: str | None = None) -> PageState:
        """Wait until both say it and name the same commands, unless the page has another word."""
        status, page = await seen(self.env["DATABASE_URL"]), self.page()
        began = time.monotonic()
        while not agree(word, on_the_page, status, page) and time.monotonic() - began < HANG_SECONDS:
            await asyncio.sleep(0.1)
            status, page = await seen(self.env["DATABASE_URL"]), self.page()
        assert agree(word, on_the_page, status, page), (status, page.verdict)
        return page

    async def type(self, *words: str, status: int = 0) -> None:
        done = await asyncio.to_thread(run, list(words), self.env, timeout=HANG_SECONDS)
        assert done.returncode == status, done.stdout + done.stderr

    @contextlib.asynccontextmanager
    async def worker(self) -> AsyncIterator[Running]:
        """Let one live while the block lasts, and end in good order."""
        async with quick_worker(self.env) as worker:
            yield worker
            if worker.process.poll() is None:
                worker.signal(signal.SIGTERM)
                assert await worker.exit_code() == 0


def agree(word: str, on_the_page: str | None, status: Answer, page: PageState) -> bool:
    if on_the_page is not None:
        return (status.word, page.verdict.state) == (word, on_the_page)
    says = (page.verdict.state, page.verdict.next_steps, page.go_on.may)
    return status.word == word and says == (status.word, list(status.next_steps), status.is_well)


@pytest.fixture
async def life(database_url: str, redis_url: str, tmp_path: Path, sql: asyncpg.Connection) -> Life:
    await seed(sql)
    await sql.execute(OLD_ROWS)
    log = tmp_path / "all.log"
    log.touch()
    return Life(environment(database_url, redis_url, LOG_FILE=str(log)), log, sql)


@pytest.mark.slow
@pytest.mark.wide
async def test_page_and_status_say_the_same_from_the_first_start_to_a_rollback_and_forward_again(
    life: Life,
) -> None:
    async with life.worker():
        await life.both_say("not_backfilled")
        with running(["-m", "worker.backfill", "--rate", "60"], life.env) as driver:
            assert (await life.both_say("backfilling")).verdict.title.startswith("Backfilling ")
            await life.type("-m", "worker.backfill", "--pause")
            assert (await life.both_say("backfill_paused")).verdict.title.startswith("Paused at ")
            await driver.exit_code()
        await life.type("-m", "worker.backfill", "--resume", "--wait")
        await life.both_say("in_sync")
    await life.both_say("stopped")
    await life.type(SCRIPT, "--rollback", "--yes")
    gone_at = (await life.both_say("rolled_back")).made_at
    async with life.worker():
        await life.both_say("rolled_back")
        await life.type("-m", "worker.audit", status=1)
        there_until = (await life.both_say("rolled_back")).made_at
        await life.type("-m", "worker.backfill", "--wait")
        forward = await life.both_say("in_sync")
    assert (forward.verdict.since or 0) > gone_at
    moments = [moment_of(line) for line in lines_of(life.log)]
    states = {life.page(until=at).verdict.state for at in moments if gone_at < at <= there_until}
    assert states == {"rolled_back"}


@pytest.mark.slow
@pytest.mark.wide
async def test_page_and_status_say_the_same_of_whatever_breaks(life: Life) -> None:
    sql = life.sql
    async with life.worker() as worker:
        await life.type("-m", "worker.backfill", "--wait")
        await life.both_say("in_sync")
        await sql.execute(
            "UPDATE project_collections SET research_context = 'x' WHERE collection_id = 'old-7'"
        )
        await life.type("-m", "worker.audit", status=1)
        assert (await life.both_say("drift")).verdict.title == "Drift: 1"
        await life.type("-m", "worker.audit", "--repair")
        await life.both_say("in_sync")  # a worker audits by itself

        letter = await append_raw(sql, "old-9", created_at="tomorrow-ish")
        assert (await life.both_say("dead_letters")).verdict.title == "In sync but for one dead letter"
        await life.type("-m", "worker.dead_letters", "discard", str(letter))
        await life.both_say("in_sync")

        await sql.execute(FELL_BACK)
        assert "because of c7" in (await life.both_say("fell_back")).verdict.detail
        await sql.execute("UPDATE migration_phase SET epoch = epoch + 1")  # as any turn does
        await life.both_say("in_sync")

        await locked(life)
        name = make_url(life.env["DATABASE_URL"]).database
        await sql.execute(f"ALTER DATABASE {name} SET default_transaction_read_only = on")
        await life.both_say("read_only")
        await sql.execute(f"ALTER DATABASE {name} RESET default_transaction_read_only")
        await life.both_say("in_sync")

        worker.signal(signal.SIGKILL)
        await worker.exit_code()
        await life.both_say("stopped", on_the_page="blind")
    async with life.worker():
        await life.both_say("in_sync")


async def locked(life: Life) -> None:
    holder = await asyncpg.connect(life.env["DATABASE_URL"], server_settings={"application_name": "psql"})
    async with holder.transaction():
        await holder.execute("LOCK TABLE project_collections IN ACCESS EXCLUSIVE MODE")
        await life.sql.execute(WRITE)
        page = await life.both_say("stuck")
        assert page.verdict.title.startswith(f"Stuck: held by pid {holder.get_server_pid()} (psql) for ")
    await holder.close()
    await life.both_say("in_sync")
