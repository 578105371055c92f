"""From a process's start until it has done something: a worker its first event, the API its first write."""

import asyncio
import json
import sys
import time
from collections.abc import Sequence
from contextlib import closing
from http import HTTPStatus
from http.client import HTTPConnection

import asyncpg

from benchmarks.bench import Bench, require, timed
from benchmarks.figures import Beside, Figure
from benchmarks.live_writes import OWNER, PROJECT, commit_write
from benchmarks.worker_process import working
from deploy.local.programs import launch
from deploy.local.run import listen
from deploy.local.service import LOOPBACK
from shared.events import EventType

FIRST_PORT = 32_000
ANSWER_TIMEOUT_SECONDS = 60
LIBRARIES = "import arq, asyncpg, pydantic_settings, sqlalchemy.ext.asyncio, structlog, uvloop"
LIMIT = "Python importing the libraries"


async def measure(bench: Bench) -> Sequence[Figure]:
    """Start each in turns; all files are in the system's cache after the first."""
    repeats = bench.choose(1, 5, 15)
    bench.facts["repeats"] = repeats
    limit, worker, api = [], [], []
    async with bench.sql() as sql:
        await sql.execute(OWNER)
        if repeats > 1:
            await first_write(PROJECT)
        for repeat in range(repeats):
            limit.append(await timed(imported(LIBRARIES)))
            worker.append(await first_event(sql, f"pending-{repeat}"))
            api.append(await first_write(PROJECT))
    return [
        Figure(LIMIT, "s", limit),
        Figure("a worker's first event", "s", worker, beside=[Beside(LIMIT)]),
        Figure("the API's first write", "s", api, beside=[Beside(LIMIT)]),
    ]


async def imported(code: str) -> None:
    """Run an interpreter that only imports."""
    interpreter = await asyncio.create_subprocess_exec(sys.executable, "-c", code)
    require(await interpreter.wait() == 0, f"Python runs {code!r}")


async def first_event(sql: asyncpg.Connection, collection_id: str) -> float:
    event_id = await commit_write(sql, EventType.CREATED, collection_id, "pending")
    began = time.time()
    async with working() as worker:
        await worker.applied([event_id])
        return worker.applied_at[event_id] - began


async def first_write(project_id: str) -> float:
    """Start the API while a write waits at its socket; return the seconds until it is answered."""
    with closing(listen(FIRST_PORT)) as socket:
        began = time.perf_counter()
        server = await launch(
            "KILL", "uvicorn", "api.main:app", "--fd", str(socket.fileno()), pass_fds=[socket.fileno()]
        )
        try:
            status = await asyncio.to_thread(post, socket.getsockname()[1], project_id)
            seconds = time.perf_counter() - began
        finally:
            server.terminate()
            await server.communicate()
    require(status == HTTPStatus.OK, f"the API answered 200, not {status}")
    return seconds


def post(port: int, project_id: str) -> int:
    with closing(HTTPConnection(LOOPBACK, port, timeout=ANSWER_TIMEOUT_SECONDS)) as connection:
        body = json.dumps({"collection_name": "first"})
        connection.request(
            "POST", f"/projects/{project_id}/collections", body, headers={"User-ID": project_id}
        )
        return connection.getresponse().status
