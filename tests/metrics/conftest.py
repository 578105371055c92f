"""The scripted run, once for all tests of this folder: they look at what it exposed."""

import asyncio
from collections.abc import Iterator

import pytest

from deploy.local.valkey import Valkey
from tests.databases import MIGRATED, Databases
from tests.metrics.run import Run, scripted


@pytest.fixture(scope="session")
def run(databases: Databases, valkey: Valkey) -> Iterator[Run]:
    with databases.clone(MIGRATED) as database_url:
        yield asyncio.run(scripted(database_url, valkey.url))
