"""PostgreSQL away for a while: for one group of processes, and as long as a test says."""

import contextlib
import re
from collections.abc import AsyncIterator
from types import SimpleNamespace
from typing import cast

import asyncpg

from deploy.local.postgres import Postgres
from tests.chaos.network import Channel

NOWHERE = cast("Postgres", SimpleNamespace(port=0))
CUT = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name ~ '^collection-sync'"


class Way:
    """A way to the server that can be closed: what goes it is cut off, and who comes is refused."""

    def __init__(self, channel: Channel, server: Postgres, sql: asyncpg.Connection, url: str) -> None:
        self._channel, self._server, self._sql = channel, server, sql
        self.url = re.sub(r":\d+/", f":{channel.port}/", url)

    async def close(self) -> None:
        self._channel.lead_to(NOWHERE)
        await self._sql.execute(CUT)

    def open(self) -> None:
        self._channel.lead_to(self._server)


@contextlib.asynccontextmanager
async def way_to(server: Postgres, sql: asyncpg.Connection, url: str) -> AsyncIterator[Way]:
    async with Channel(server).listening() as channel:
        yield Way(channel, server, sql, url)
