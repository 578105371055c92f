"""One journey through all that the product does, in whatever world its database is.

A step may work, or refuse in a sentence. What none may do: fail without one, hang, or call good what is not.
"""

import asyncio
import json
import os
import signal
import tempfile
import time
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from typing import Any
from urllib.parse import quote

import asyncpg
from pydantic import SecretStr
from structlog.testing import capture_logs

from api.main import create_app
from shared.settings import Settings
from tests.api.clients import started
from tests.drift import drift
from tests.forked import Forked
from tests.log_lines import hold_printed
from tests.phase1.script import SCRIPT
from tests.processes import HANG_SECONDS, environment, running
from tests.rollback.situations import shown

WORKER = ["-m", "worker"]
AUDIT = ["-m", "worker.audit"]
BACKFILL = ["-m", "worker.backfill"]
LETTERS = ["-m", "worker.dead_letters"]

ADMIN = {"X-Admin-Token": "administrators only"}
OWNER = {"User-ID": "owner"}
LINKED = "c03"  # shown by its home and by a link
FOUND = [("c01", "p2"), ("c02", "p3"), ("c03", "p2")]  # what is in the target before phase 1, and stays

# As moves are made: by somebody's SQL, with its event in the same transaction.
MOVE = """
    WITH moved AS (
        UPDATE collections SET project_id = 'p2', updated_at = clock_timestamp()
        WHERE collection_id = $1 RETURNING *
    )
    INSERT INTO outbox_events (aggregate_id, event_type, source, payload)
    SELECT collection_id, 'collection.updated', 'api', jsonb_build_object('project_id', project_id,
        'research_context', description, 'created_at', created_at, 'updated_at', updated_at)
    FROM moved
"""
DRIFT = """
    UPDATE project_collections SET research_context = 'drift' WHERE collection_id = 'c05';
    DELETE FROM project_collections WHERE collection_id = 'c06';
    INSERT INTO project_collections (project_id, collection_id) VALUES ('p3', 'c35')
"""
POISON = """
    INSERT INTO outbox_events (aggregate_id, event_type, source, payload)
    VALUES ('c07', 'collection.updated', 'api', '{"project_id": 7}')
"""
IS_WHERE_IT_BELONGS = """
    SELECT is_active = EXISTS (
        SELECT FROM project_collections AS target
        WHERE target.collection_id = legacy.collection_id AND target.project_id = legacy.project_id
    ) FROM collections AS legacy WHERE collection_id = $1
"""
PENDING = "SELECT DISTINCT aggregate_id FROM outbox_events"
LETTERS_OPEN = "SELECT count(*) FROM outbox_dead_letters WHERE closed_at IS NULL"
BACKFILLED = "SELECT count(*) FROM backfill_runs WHERE status = 'finished'"

OFTEN = 3  # for a worker's failure to be no accident


class Journey:
    """What is said on the way, and what of it refuses something."""

    def __init__(self, sql: asyncpg.Connection, urls: Mapping[str, str], redis_url: str, log: Path) -> None:
        """Take the owner's connection, an URL for each role, Redis, and the file for all logs."""
        self.refusals: list[str] = []
        self._sql = sql
        self._urls = urls
        self._redis_url = redis_url
        self._log = log
        self._seen = 0  # of the worker's lines, those of steps before

    async def travel(self, project: str) -> None:
        """Make every step; after one that was refused only those that look."""
        settings = Settings(
            database_url=SecretStr(self._urls["api"]),
            redis_url=SecretStr(self._redis_url),
            admin_token=SecretStr(ADMIN["X-Admin-Token"]),
        )
        with capture_logs() as self._api_lines:
            async with started(create_app(settings)) as self._client:
                kept, deleted, moved = await self._write(f"/projects/{quote(project, safe='')}/collections")
                await self._order_backfill()
                with running(WORKER, self._env("worker")) as self._worker:
                    await self._settle()
                    for path in (kept, deleted, moved):
                        await self._ask_sync(path)
                    await self._go_on_with_backfill()
                    await self._prove()
                    await self._mend()
                    await self._replay()
                    await self._look_at_dashboard()
                    await self._stop_worker()
        await self._roll_back()

    # The API

    async def _write(self, path: str) -> tuple[str, str, str]:
        await self._request("GET", "/readyz")
        made = [await self._request("POST", path, collection_name=name) for name in ("kept", "gone", "moved")]
        kept, deleted, moved = (f"{path}/{(one or {}).get('collection_id')}" for one in made)
        if not self.refusals:
            for description in ("first", "then"):
                await self._request("PUT", kept, description=description)
            await self._request("DELETE", deleted)
            await self._sql.execute(MOVE, moved.rpartition("/")[2])
        await self._request("GET", path)
        return kept, deleted, moved.replace(path, "/projects/p2/collections")

    async def _order_backfill(self) -> None:
        if not self.refusals:
            await self._request("POST", "/admin/backfill", rate=10_000)
            await self._request("POST", "/admin/backfill/pause")

    async def _request(self, method: str, path: str, **body: object) -> Any:  # noqa: ANN401 - JSON
        """Return the answer, or None where it refuses: not ready, or try again, and the log says why."""
        answer = await self._client.request(method, path, headers=ADMIN | OWNER, json=body or None)
        if answer.is_success:
            return answer.json()
        assert answer.status_code == 503, (method, path, answer.text, self._api_lines)
        why = [line for line in self._api_lines if line["event"] == "database_unavailable"]
        assert why or path == "/readyz", (method, path, answer.text, self._api_lines)
        self.refusals.append(f"{method} {path}: {answer.text} {why}")
        return None

    async def _ask_sync(self, path: str) -> None:
        """Believe `synced` only where the row is there, or gone; what it holds is the audit's to tell."""
        if not self.refusals and (state := await self._request("GET", f"{path}/sync")):
            is_right = await self._sql.fetchval(IS_WHERE_IT_BELONGS, path.rpartition("/")[2])
            assert is_right or state["state"] != "synced", state

    # The worker

    async def _settle(self) -> None:
        """Wait until nothing is pending, or the worker has said again and again that it cannot."""
        if not self.refusals:
            await self._until(self._is_drained)
            if letters := await self._sql.fetchval(LETTERS_OPEN):
                self._refuse("worker", f"{letters} dead", *map(str, self._dead()))

    async def _is_drained(self) -> bool:
        return not await self._sql.fetch(PENDING)

    async def _is_backfilled(self) -> bool:
        return bool(await self._sql.fetchval(BACKFILLED))

    async def _until(self, condition: Callable[[], Awaitable[bool]]) -> None:
        self._seen = len(self._worker.lines)
        deadline = time.monotonic() + HANG_SECONDS
        while not await condition():
            assert time.monotonic() < deadline, self._worker.output
            if complaints := self._complaints():
                self._refuse("worker", *complaints)
                return
            await asyncio.sleep(0.01)

    def _complaints(self) -> list[str]:
        """Return what the worker says of what it cannot do, once that is no accident."""
        if self._worker.process.poll() is not None:
            return [self._worker.output]
        lines = [json.loads(line) for line in self._worker.lines[self._seen :] if line.startswith("{")]
        told = [line for line in lines if line["level"] in {"warning", "error"}]
        failures = [line["event"] for line in told].count
        given_up = [line for line in self._worker.logged("duty_failed") if line["level"] == "error"]
        is_serious = failures("batch_failed") >= OFTEN or failures("events_postponed") >= OFTEN
        return list(map(str, [*told, *given_up])) if is_serious or given_up else []

    def _dead(self) -> list[dict[str, Any]]:
        return [line for line in self._worker.logged("event_settled") if line["outcome"] == "dead"]

    async def _go_on_with_backfill(self) -> None:
        if not self.refusals:
            paused = await self._request("GET", "/admin/backfill")
            assert (paused["status"], paused["processed"]) == ("paused", 0)
            await self._request("POST", "/admin/backfill/resume")
            await self._until(self._is_backfilled)
            await self._settle()

    async def _stop_worker(self) -> None:
        if self._worker.process.poll() is None:
            self._worker.signal(signal.SIGTERM)
        status = await self._worker.exit_code()
        assert status in {0, 2}, self._worker.output
        assert "Traceback" not in self._worker.output
        assert status == 0 or self.refusals

    # The commands

    async def _command(self, *words: str, waits: bool = False) -> tuple[int, dict[str, Any], str]:
        """Run a command as the operator; return its status, its JSON, and the sentences that it said.

        One that waits for a worker which cannot do it is interrupted, as by Ctrl-C, and must heed that.
        """
        self._seen = len(self._worker.lines)
        with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
            process = Forked([*words, "--json"], self._env("operator"), stdout=out, stderr=err)
            deadline = time.monotonic() + HANG_SECONDS
            try:
                while (status := process.poll()) is None:
                    assert time.monotonic() < deadline, (words, self._worker.output)
                    listens = os.fstat(err.fileno()).st_size > 0  # to signals: it has begun to log
                    if waits and listens and self._complaints():
                        process.send_signal(signal.SIGINT)
                        process.wait(HANG_SECONDS)
                    await asyncio.sleep(0.01)
            finally:
                process.kill()
            out.seek(0)
            err.seek(0)
            printed, said = (file.read().decode() for file in (out, err))
        hold_printed(said)
        assert "Traceback" not in said, said
        assert 'File "' not in said, said
        assert status in {0, 1, 2}, (words, status, said)
        sentences = "\n".join(line for line in said.splitlines() if not line.startswith("{"))
        assert status == 0 or printed or sentences, words
        return status, json.loads(printed) if printed else {}, sentences

    async def _prove(self) -> None:
        """Backfill once more, where there is nothing to do, and audit; where that is refused only audit."""
        if not self.refusals:
            status, run, said = await self._command(*BACKFILL, "--wait", waits=True)
            if status == 0:
                assert run["enqueued"] == 0
                await self._believe(run["audit"])
                return
            self._refuse("backfill", run, said)
        if await self._audit() == "drift":
            await self._audit("--repair")

    async def _audit(self, *options: str) -> str:
        """Audit and return the verdict; one that says nothing is wrong must be true."""
        status, run, said = await self._command(*AUDIT, *options, waits=bool(options))
        if status == 0:
            await self._believe(run)
        elif run.get("verdict") != "drift" or options:
            self._refuse("audit", run, said)
        return str(run.get("verdict", "refused"))

    async def _believe(self, audited: Mapping[str, Any]) -> None:
        assert audited["verdict"] in {"in_sync", "pending", "repaired"}, audited
        assert await self._wrong() == set(), audited

    async def _wrong(self) -> set[str]:
        """Return the collections that differ although no event for them waits."""
        waiting = {row["aggregate_id"] for row in await self._sql.fetch(PENDING)}
        return set(await drift(self._sql)) - waiting - {LINKED}

    async def _mend(self) -> None:
        if self.refusals:
            return
        await self._sql.execute(DRIFT)
        assert await self._audit() == "drift"
        if await self._audit("--repair") == "repaired":
            assert await self._audit() == "in_sync"

    async def _replay(self) -> None:
        if self.refusals:
            await self._look(*LETTERS, "list")
            return
        await self._sql.execute(POISON)
        await self._until(self._is_drained)
        status, listed, said = await self._command(*LETTERS, "list")
        if status:
            self._refuse("dead letters", listed, said)
            return
        assert listed["total"] == 1
        number = str(listed["dead_letters"][0]["id"])
        status, replayed, said = await self._command(*LETTERS, "replay", "--wait", number, waits=True)
        if status == 0:
            assert (replayed["replayed"], replayed["pending"]) == (1, 0)
        else:
            self._refuse("replay", replayed, said)

    async def _look(self, *words: str) -> None:
        status, found, said = await self._command(*words)
        if status:
            self._refuse(" ".join(words), found, said)

    async def _look_at_dashboard(self) -> None:
        """Believe that all agrees only where it does."""
        _, seen, _ = await self._command("-m", "worker.dashboard", str(self._log))
        assert not seen["may_go_on"] or await self._wrong() == set(), seen

    async def _roll_back(self) -> None:
        if self.refusals:
            await self._look(SCRIPT, "--rollback")
            return
        status, result, said = await self._command(SCRIPT, "--rollback", "--yes")
        if status:
            self._refuse("rollback", result, said)
        else:
            left = await shown(self._sql)
            assert left == FOUND, (left, result)

    def _env(self, role: str) -> dict[str, str]:
        return environment(self._urls[role], self._redis_url, LOG_FILE=str(self._log))

    def _refuse(self, who: str, *what: object) -> None:
        self.refusals.append(" ".join((who, *map(str, what))))
