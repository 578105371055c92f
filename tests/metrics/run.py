"""One scripted run of the real processes, and what they exposed and logged at its end."""

import asyncio
import json
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import asyncpg
import httpx
from prometheus_client import Metric
from prometheus_client.parser import text_string_to_metric_families

from tests.api.clients import ALL, OWNER, SEEDED, UNKNOWN
from tests.api.recording import NAMES, seed
from tests.processes import HANG_SECONDS, Running, environment, free_port, running_api, running_worker
from tests.worker.events import append_raw

ADMIN = {"X-Admin-Token": "administrators"}
POISON = "poison-7f3b"
UNHEARD_OF = "/nowhere/4d1c9e77"


@dataclass(frozen=True)
class Exposition:
    """What one process exposed, as text and as numbers."""

    text: str
    families: dict[str, Metric]

    @classmethod
    def of(cls, text: str) -> "Exposition":
        return cls(text, {family.name: family for family in text_string_to_metric_families(text)})

    def value(self, name: str, **labels: str) -> float | None:
        """Return the value of the one series of that name and exactly these labels."""
        samples = (sample for family in self.families.values() for sample in family.samples)
        found = [sample.value for sample in samples if (sample.name, sample.labels) == (name, labels)]
        assert len(found) <= 1, found
        return found[0] if found else None

    def series(self) -> set[tuple[str, tuple[str, ...]]]:
        """Return the names as they stand in a query, each with the labels of its series."""
        return {
            (sample.name, tuple(sorted(sample.labels)))
            for family in self.families.values()
            for sample in family.samples
        }


@dataclass
class Run:
    """What came of the run."""

    api: Exposition
    worker: Exposition
    lines: list[dict[str, Any]]
    ids: set[str] = field(default_factory=set)


async def scrape(url: str) -> Exposition:
    async with httpx.AsyncClient(timeout=HANG_SECONDS) as client:
        answer = await client.get(f"{url}/metrics")
        assert answer.status_code == 200
        assert answer.headers["Content-Type"].startswith("text/plain; version=")
        return Exposition.of(answer.text)


async def scrape_when(url: str, ready: Callable[[Exposition], bool]) -> Exposition:
    """Scrape until what is exposed is ready, and return it."""
    async with asyncio.timeout(HANG_SECONDS):
        while not ready(exposed := await scrape(url)):
            await asyncio.sleep(0.1)
        return exposed


def database_is(up: float) -> Callable[[Exposition], bool]:
    return lambda exposed: exposed.value("collection_sync_database_up") == up


def has_seen_it_all(exposed: Exposition) -> bool:
    """Say whether the worker looked at the database after the last step of the run."""
    return (
        exposed.value("collection_sync_dead_letters_open"),
        exposed.value("collection_sync_audit_verdict", verdict="in_sync"),
        exposed.value("collection_sync_backfill_status", status="finished"),
        exposed.value("collection_sync_phase"),
        exposed.value("collection_sync_going_back_lost", kind="tags"),
    ) == (1, 1, 1, 3, 0)


def logged(*processes: Running) -> list[dict[str, Any]]:
    lines = (line for process in processes for line in process.lines)
    return [json.loads(line) for line in lines if line.startswith("{")]


async def write(client: httpx.AsyncClient) -> set[str]:
    """Create, change, delete and miss; return every id that a label could have picked up."""
    created = (await client.post(ALL, json={"collection_name": "Mine"})).json()["collection_id"]
    assert (await client.put(f"{ALL}/{created}", json={"research_context": "x"})).status_code == 200
    assert (await client.put(SEEDED, json={"research_context": "y"})).status_code == 200
    assert (await client.delete(f"{ALL}/{created}")).status_code == 200
    assert (await client.put(UNKNOWN, json={})).status_code == 404
    assert (await client.get(UNHEARD_OF)).status_code == 404
    assert (await client.request("PROPFIND", f"{ALL}/{created}")).status_code == 405
    return {created}


async def scripted(database_url: str, redis_url: str) -> Run:
    """Start API and worker; write, poison, backfill, audit; then scrape both."""
    sql = await asyncpg.connect(database_url)
    try:
        await seed(sql)
        await sql.execute("ALTER TABLE outbox_events ALTER COLUMN id RESTART WITH 73400111")
        return await act(sql, database_url, redis_url)
    finally:
        await sql.close()


async def act(sql: asyncpg.Connection, database_url: str, redis_url: str) -> Run:
    port = free_port()
    env = environment(
        database_url, redis_url, WORKER_METRICS_PORT=str(port), ADMIN_TOKEN=ADMIN["X-Admin-Token"]
    )
    async with (
        running_worker(env) as worker,
        running_api(env) as (api, api_url),
        httpx.AsyncClient(base_url=api_url, headers=OWNER | ADMIN, timeout=HANG_SECONDS) as client,
    ):
        await worker.wait_for("audit_finished")  # which finds the drift that the seed brings
        await sql.execute("UPDATE migration_phase SET phase = 'shadow_reads'")  # so that losses are counted
        ids = await write(client)
        event_id = await append_raw(sql, POISON, research_context=7)
        assert (await client.post("/admin/backfill", json={})).status_code == 202
        await worker.wait_for("backfill_finished")
        assert (await client.get("/admin/verify-phase1-migration?wait_seconds=60")).status_code == 200
        exposed = await scrape_when(f"http://127.0.0.1:{port}", has_seen_it_all)
        run = Run(await scrape(api_url), exposed, logged(worker, api), ids)
        run.ids |= {POISON, UNHEARD_OF, str(event_id), str(worker.pid), str(api.pid), *NAMES.values()}
        run.ids |= {str(line["event_id"]) for line in run.lines if "event_id" in line}
        return run
