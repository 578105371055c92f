"""Whatever the tests are told to run on is what runs: each cell of the matrix begins with these."""

import asyncpg
from redis import Redis

from deploy.local.postgres import find_binaries, major_of
from deploy.local.valkey import Valkey, find_server
from tests.matrix.cells import said_by


async def test_the_server_is_of_the_version_that_was_asked_for(sql: asyncpg.Connection) -> None:
    assert sql.get_server_version().major == major_of(find_binaries())


def test_the_doorbell_s_server_is_the_one_that_was_asked_for(valkey: Valkey) -> None:
    said = said_by(str(find_server()), "--version")
    with Redis.from_url(valkey.url) as redis:
        server = redis.info("server")
    is_valkey = said.startswith("Valkey")
    runs = server["valkey_version"] if is_valkey else server["redis_version"]
    assert server.get("server_name", "redis") == ("valkey" if is_valkey else "redis")
    assert f"v={runs} " in said
