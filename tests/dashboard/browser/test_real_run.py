"""A browser beside a real run: every step shows on the open page, at its time and in its order."""

import asyncio
import contextlib
import json
import signal
from collections.abc import AsyncIterator
from dataclasses import dataclass
from datetime import datetime
from itertools import groupby
from pathlib import Path
from typing import Any

import asyncpg
import httpx
import pytest
from playwright.async_api import Browser

from tests.backfill.rows import ADD_MANY
from tests.dashboard.browser.watching import LIGHT, Watched, watch
from tests.dashboard.scripted import quick_worker
from tests.drift import drift
from tests.forked import run
from tests.legacy_rows import seed
from tests.processes import (
    HANG_SECONDS,
    Running,
    environment,
    free_port,
    running,
    running_api,
    running_worker,
)
from tests.worker.events import append_raw

BLIND_AFTER_SECONDS = 15.0  # of the last heartbeat
# Every verdict that the page shows, with the moment, from its first one on.
RECORD_STATES = """
    window.seen = [];
    addEventListener('DOMContentLoaded', () => {
        const verdict = document.getElementById('verdict');
        const note = () => {
            const state = verdict.dataset.state;
            if (!state || window.seen.at(-1)?.state === state) return;
            window.seen.push({state, at: Date.now() / 1000});
        };
        new MutationObserver(note).observe(verdict, {attributes: true});
    });
"""
HOLD_THE_LAST = "SELECT FROM collections ORDER BY collection_id DESC LIMIT 1 FOR UPDATE"
STATE_IS = "state => document.getElementById('verdict').dataset.state === state"
SAYS = "([where, what]) => document.querySelector(where).innerText.replace(/\\s+/g, ' ').includes(what)"


@dataclass
class Scene:
    """The processes' environment, their common log, and the page that is open on it."""

    env: dict[str, str]
    log: Path
    watched: Watched
    address: str

    async def command(self, *words: str) -> int:
        """Run one of our commands to its end and return its status."""
        done = await asyncio.to_thread(run, ["-m", *words], self.env, timeout=HANG_SECONDS)
        return done.returncode

    def lines(self, event: str) -> list[dict[str, Any]]:
        """Return the log's whole lines with this event's name."""
        whole = self.log.read_text(encoding="utf-8").rpartition("\n")[0].splitlines()
        return [line for line in map(json.loads, whole) if line["event"] == event]

    async def line(self, event: str, **fields: object) -> dict[str, Any]:
        """Wait for a line of these fields and return it, with the moment of its timestamp as `at`."""
        async with asyncio.timeout(HANG_SECONDS):
            while not (found := [line for line in self.lines(event) if fields.items() <= line.items()]):
                await asyncio.sleep(0.02)
        return found[-1] | {"at": datetime.fromisoformat(found[-1]["timestamp"]).timestamp()}

    async def states(self) -> list[dict[str, Any]]:
        """Return every verdict that was shown, as `state` and `at`."""
        seen: list[dict[str, Any]] = await self.watched.page.evaluate("window.seen")
        return seen


@contextlib.asynccontextmanager
async def serving(env: dict[str, str], log: Path, port: int) -> AsyncIterator[Running]:
    """Start the dashboard and wait until it has printed its address."""
    with running(["-m", "worker.dashboard", str(log), "--serve", str(port)], env) as dashboard:
        while not any(line.startswith("http://") for line in dashboard.lines):
            assert dashboard.process.poll() is None, dashboard.output
            await asyncio.sleep(0.02)
        yield dashboard


@contextlib.asynccontextmanager
async def open_page(env: dict[str, str], log: Path, own_browser: Browser) -> AsyncIterator[Scene]:
    """Serve the log and open the page on it."""
    port = free_port()
    async with serving(env, log, port):
        context = await own_browser.new_context(**LIGHT)
        await context.add_init_script(RECORD_STATES)
        watched = await watch(context)
        address = f"http://127.0.0.1:{port}/"
        await watched.page.goto(address)
        yield Scene(env, log, watched, address)
        await context.close()


@pytest.fixture
def log(tmp_path: Path) -> Path:
    path = tmp_path / "log.jsonl"
    path.touch()
    return path


@pytest.fixture
def env(database_url: str, redis_url: str, log: Path) -> dict[str, str]:
    return environment(database_url, redis_url, LOG_FILE=str(log))


@pytest.mark.wide
@pytest.mark.slow
async def test_each_step_of_a_run_shows_and_the_verdict_turns_red_and_green(
    env: dict[str, str], log: Path, sql: asyncpg.Connection, own_browser: Browser
) -> None:
    await seed(sql)
    async with (
        open_page(env, log, own_browser) as scene,
        running_api(env) as (_, api),
        quick_worker(env),
    ):
        green = await scene.line("audit_finished", verdict="in_sync")  # the worker's first, by itself
        await scene.watched.until(STATE_IS, "in_sync")
        assert await scene.command("worker.backfill", "--wait") == 0  # else what is missing is no drift
        await _write(scene, api)
        await _poison(scene, sql)
        red, clean = await _drift_and_repair(scene, sql)
        await _backfill(scene, sql)
        await _close_letters(scene)
        await scene.watched.until(STATE_IS, "in_sync")
        lasting = [
            one for one in await scene.states() if one["state"] in {"in_sync", "dead_letters", "drift"}
        ]

    seen = [next(same) for _, same in groupby(lasting, key=lambda one: one["state"])]
    assert [state["state"] for state in seen] == [
        "in_sync",
        "dead_letters",
        "drift",
        "dead_letters",
        "in_sync",
    ]
    for state, cause in ((seen[0], green), (seen[2], red), (seen[4], clean)):
        assert state["at"] > cause["at"]
    scene.watched.assert_quiet()
    assert scene.watched.hosts() == {scene.address.split("/")[2]}
    assert await drift(sql) == []


async def _write(scene: Scene, api: str) -> None:
    async with httpx.AsyncClient(base_url=api, headers={"User-ID": "owner"}, timeout=HANG_SECONDS) as client:
        for number in range(20):
            body = {"collection_name": f"Number {number}", "description": f"text {number}"}
            answer = await client.post("/projects/p1/collections", json=body)
            assert answer.is_success, answer.text
    await _settled(scene, 20)
    await scene.watched.until(SAYS, ["#lanes-rows tr:first-child", "live 20 0"])
    assert "20 live applied" in str(
        await scene.watched.page.locator("#throughput .plot").get_attribute("aria-label")
    )


async def _settled(scene: Scene, events: int) -> None:
    async with asyncio.timeout(HANG_SECONDS):
        while sum(line["applied"] for line in scene.lines("batch_settled")) < events:
            await asyncio.sleep(0.02)


async def _poison(scene: Scene, sql: asyncpg.Connection) -> None:
    event_id = await append_raw(sql, "poisoned", created_at="tomorrow-ish")
    await scene.line("event_settled", event_id=event_id, outcome="dead")
    await scene.watched.until(SAYS, ["#letters-rows", f"{event_id} poisoned p1 collection.updated api 22007"])
    await scene.line("worker_heartbeat", dead_letters=1)
    await scene.watched.until(SAYS, ["#tile-dead", "1"])
    await scene.watched.until(STATE_IS, "dead_letters")
    assert "No" in await scene.watched.text("#go-on-answer")


async def _drift_and_repair(scene: Scene, sql: asyncpg.Connection) -> tuple[dict[str, Any], dict[str, Any]]:
    changed, lost = [
        row["collection_id"]
        for row in await sql.fetch("SELECT collection_id FROM project_collections ORDER BY 1 LIMIT 2")
    ]
    await sql.execute(
        "UPDATE project_collections SET research_context = 'by hand' WHERE collection_id = $1", changed
    )
    await sql.execute("DELETE FROM project_collections WHERE collection_id = $1", lost)
    assert await scene.watched.state() == "dead_letters"  # no audit has looked yet

    assert await scene.command("worker.audit") == 1
    red = await scene.line("audit_finished", verdict="drift")
    await scene.watched.until(STATE_IS, "drift")
    assert "Drift: 2" in await scene.watched.text("#verdict-title")
    await scene.watched.until(SAYS, ["#findings-rows", "by hand"])
    assert (
        await scene.watched.text("#tile-audit") == "compared 20 missing 1 mismatched 1 orphaned 0 pending 0"
    )

    await scene.command("worker.audit", "--repair")
    await scene.line("audit_finished", verdict="repaired")
    await scene.watched.until(STATE_IS, "dead_letters")  # a worker audits at once
    assert (await scene.watched.text("#findings-rows")).count("repaired") >= 2

    assert await scene.command("worker.audit") == 0
    clean = max(
        [await scene.line("audit_finished", verdict="in_sync", requested_by="command")],
        key=lambda line: line["at"],
    )
    return red, clean


async def _backfill(scene: Scene, sql: asyncpg.Connection) -> None:
    await sql.execute(ADD_MANY, "old", 3000)
    async with sql.transaction():
        await sql.execute(HOLD_THE_LAST)
        driving = asyncio.create_task(scene.command("worker.backfill", "--wait"))
        chunk = await scene.line("backfill_chunk", run_id=2)
        await scene.watched.until(SAYS, ["#backfill-status", "running"])
        await scene.watched.until(SAYS, ["#backfill-figures", f"of {chunk['planned']:,}"])
    assert await driving == 0
    line = await scene.line("backfill_finished", run_id=2)
    await scene.watched.until(SAYS, ["#backfill-status", "finished"])
    figures = await scene.watched.text("#backfill-figures")
    assert f"{line['processed']:,} of {line['planned']:,}" in figures
    await scene.watched.until(SAYS, ["#tile-audit", f"{await _pairs(sql):,}"])


async def _pairs(sql: asyncpg.Connection) -> int:
    count: int = await sql.fetchval("SELECT count(*) FROM project_collections")
    return count


async def _close_letters(scene: Scene) -> None:
    assert await scene.command("worker.dead_letters", "discard", "--all", "--yes") == 0
    await scene.line("dead_letters_discarded")
    await scene.watched.until(SAYS, ["#letters-rows", "discarded"])
    await scene.watched.until(SAYS, ["#go-on-answer", "Yes"])


@pytest.mark.long  # tests/dashboard/test_server.py and test_page.py move the clocks instead
async def test_the_page_says_blind_fifteen_seconds_after_the_last_heartbeat_of_a_killed_worker(
    env: dict[str, str], log: Path, sql: asyncpg.Connection, own_browser: Browser
) -> None:
    await seed(sql)
    async with open_page(env, log, own_browser) as scene, running_worker(env) as worker:
        await scene.line("audit_finished", verdict="in_sync")
        await scene.watched.until(STATE_IS, "in_sync")
        worker.signal(signal.SIGKILL)
        await worker.exit_code()
        heard = (await scene.line("worker_heartbeat"))["at"]
        await scene.watched.until(STATE_IS, "blind")
        shown = (await scene.states())[-1]

        assert shown["state"] == "blind"
        assert shown["at"] - heard > BLIND_AFTER_SECONDS - 1
        assert "Blind" in await scene.watched.text("#verdict-title")
        assert "No" in await scene.watched.text("#go-on-answer")
        await scene.watched.until(SAYS, ["#workers-rows", "silent"])
        scene.watched.assert_quiet()


@pytest.mark.wide
async def test_the_page_says_that_the_dashboard_is_gone_and_recovers_when_it_is_back(
    log: Path, own_browser: Browser
) -> None:
    env, port = environment("", ""), free_port()
    watched = await watch(await own_browser.new_context(**LIGHT))
    async with serving(env, log, port) as dashboard:
        await watched.page.goto(f"http://127.0.0.1:{port}/")
        await watched.until(
            "() => performance.getEntriesByName(location.origin + '/snapshot.json').length > 0"
        )
        assert await watched.page.locator("#notice").is_hidden()
        dashboard.kill()
        await watched.page.locator("#notice").wait_for()
        assert "does not answer; what you see is old" in await watched.text("#notice")
    async with serving(env, log, port):
        await watched.page.locator("#notice").wait_for(state="hidden")
    assert watched.errors == []
