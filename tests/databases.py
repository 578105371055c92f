"""Databases that live as long as a test, cloned from one migrated template."""

import asyncio
import itertools
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import asyncpg

from deploy.local.postgres import Postgres


class Databases:
    """Creates and drops databases on one server; names are constants of the tests."""

    def __init__(self, server: Postgres) -> None:
        self._server = server
        self._numbers = itertools.count(1)

    def create_empty(self, name: str) -> str:
        self._execute(f'CREATE DATABASE "{name}"')
        return self._server.url_of(name)

    @contextmanager
    def clone(self, template: str) -> Iterator[str]:
        name = f"test_{next(self._numbers)}"
        self._execute(f'CREATE DATABASE "{name}" TEMPLATE "{template}"')
        try:
            yield self._server.url_of(name)
        finally:
            self._execute(f'DROP DATABASE "{name}" WITH (FORCE)')

    def _execute(self, statement: str) -> None:
        async def run() -> None:
            connection = await asyncpg.connect(self._server.url)
            try:
                await connection.execute(statement)
            finally:
                await connection.close()

        with ThreadPoolExecutor(max_workers=1) as thread:  # a test's own loop may be running in ours
            thread.submit(asyncio.run, run()).result()
