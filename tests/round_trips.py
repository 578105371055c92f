"""Counting round trips to PostgreSQL where none can hide: on the wire."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from sqlalchemy.engine import make_url

NO_TLS = b"N"  # the server's answer to a client that asks for TLS: a byte, and no message
READY = b"Z"  # ReadyForQuery: the server has done what it was sent, and waits for more


class RoundTrips:
    """A way to the server that counts how often it said that it had done what it was sent."""

    def __init__(self) -> None:
        self.url = ""
        self._count = 0

    def taken(self) -> int:
        """Return the round trips since the last call."""
        count, self._count = self._count, 0
        return count

    async def _count_answers(self, server: asyncio.StreamReader, client: asyncio.StreamWriter) -> None:
        kind = await server.readexactly(1)
        if kind == NO_TLS:
            client.write(kind)
            kind = await server.readexactly(1)
        while True:
            length = await server.readexactly(4)
            client.write(kind + length + await server.readexactly(int.from_bytes(length) - 4))
            self._count += kind == READY
            kind = await server.readexactly(1)


async def _forward(client: asyncio.StreamReader, server: asyncio.StreamWriter) -> None:
    while sent := await client.read(65_536):
        server.write(sent)


@asynccontextmanager
async def counted(database_url: str) -> AsyncIterator[RoundTrips]:
    """Open such a way to the database; it has a URL of its own."""
    url, trips = make_url(database_url), RoundTrips()

    async def connected(client: asyncio.StreamReader, to_client: asyncio.StreamWriter) -> None:
        server, to_server = await asyncio.open_connection(url.host, url.port)
        ways = [
            asyncio.create_task(trips._count_answers(server, to_client)),  # noqa: SLF001 - its own
            asyncio.create_task(_forward(client, to_server)),
        ]
        await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)  # either side may close
        to_server.close()
        to_client.close()
        await asyncio.gather(*ways, return_exceptions=True)

    async with await asyncio.start_server(connected, "127.0.0.1", 0) as listener:
        port = listener.sockets[0].getsockname()[1]
        trips.url = url.set(host="127.0.0.1", port=port).render_as_string(hide_password=False)
        yield trips
