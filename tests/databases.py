"""Databases that live as long as a test, cloned from one migrated template before anybody asks."""

import asyncio
import itertools
from collections import defaultdict
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from types import TracebackType
from typing import Self

import asyncpg

from deploy.local.postgres import Postgres

MIGRATED = "template_migrated"
FIRST_WITH_STRATEGIES = 15  # before, there is but one: files are copied


class Databases:
    """Creates and drops databases on one server; names are constants of the tests.

    A clone takes a fiftieth of a second as copied files; written to the log, as is usual, twice that.
    So while a test runs on one, the next is made, and the one of the test before is dropped, on a
    connection and in a thread of their own.
    """

    def __init__(self, server: Postgres) -> None:
        self._server = server
        self._as_files = "STRATEGY file_copy" if server.major >= FIRST_WITH_STRATEGIES else ""
        self._numbers = itertools.count(1)
        self._thread = ThreadPoolExecutor(max_workers=1)  # a test's own loop may be running in ours
        self._loop = asyncio.new_event_loop()
        self._connection: asyncpg.Connection | None = None
        self._clones: defaultdict[str, list[Future[str]]] = defaultdict(list)  # by template
        self._dropped: Future[str] | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._thread.submit(self._close).result()
        self._thread.shutdown()

    def create_empty(self, name: str) -> str:
        self.execute(f'CREATE DATABASE "{name}"')
        return self._server.url_of(name)

    def execute(self, statement: str) -> None:
        self._thread.submit(self._execute, statement).result()

    @contextmanager
    def clone(self, template: str) -> Iterator[str]:
        clones = self._clones[template]
        if not clones:
            clones.append(self._clone(template))
        name = clones.pop().result()
        clones.append(self._clone(template))
        if self._dropped is not None:
            self._dropped.result()  # or nobody would hear of a fault
        try:
            yield self._server.url_of(name)
        finally:
            self._dropped = self._thread.submit(self._execute, f'DROP DATABASE "{name}" WITH (FORCE)')

    def _clone(self, template: str) -> Future[str]:
        name = f"test_{next(self._numbers)}"
        return self._thread.submit(
            self._execute, f'CREATE DATABASE "{name}" TEMPLATE "{template}" {self._as_files}', name
        )

    def _execute(self, statement: str, name: str = "") -> str:
        async def run() -> None:
            if self._connection is None or self._connection.is_closed():
                self._connection = await asyncpg.connect(self._server.url)
            await self._connection.execute(statement)

        self._loop.run_until_complete(run())
        return name

    def _close(self) -> None:
        if self._connection is not None:
            self._loop.run_until_complete(self._connection.close(timeout=5))
        self._loop.close()
