"""Counting what is asked of PostgreSQL where nothing can hide: on the wire."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from sqlalchemy.engine import make_url

PROTOCOL_3 = 196608  # what the first message says that asks for a session; one before may ask for TLS
SESSION = b"session"  # that message's kind, which has no letter
EXECUTED = (b"E", b"Q")  # Execute, Query
ANSWERED = (b"S", b"H", b"Q", b"p", SESSION)  # Sync, Flush, and so on: the client waits for an answer


class Wire:
    """A way to the server that counts the messages of those who take it.

    `statements` were carried out, BEGIN and COMMIT among them; for each of `round_trips` somebody waited:
    it took a statement, its preparation, or a step of opening a connection.
    """

    def __init__(self) -> None:
        self.url = ""
        self._sent: Counter[bytes] = Counter()
        self._taken = 0

    @property
    def statements(self) -> int:
        return sum(self._sent[kind] for kind in EXECUTED)

    @property
    def round_trips(self) -> int:
        return sum(self._sent[kind] for kind in ANSWERED)

    def taken(self) -> int:
        """Return the round trips since the last call."""
        before, self._taken = self._taken, self.round_trips
        return self._taken - before

    async def carry(self, client: asyncio.StreamReader, server: asyncio.StreamWriter) -> None:
        """Count and pass on what one client sends, until it leaves."""
        asked_for = 0
        while asked_for != PROTOCOL_3:
            message = await _message(client)
            asked_for = int.from_bytes(message[4:8])
            self._sent[SESSION] += 1
            server.write(message)
        while True:
            kind = await client.readexactly(1)
            message = await _message(client)
            self._sent[kind] += 1
            server.write(kind + message)


async def _message(client: asyncio.StreamReader) -> bytes:
    length = await client.readexactly(4)
    return length + await client.readexactly(int.from_bytes(length) - 4)


async def _pass_on(server: asyncio.StreamReader, client: asyncio.StreamWriter) -> None:
    while sent := await server.read(65_536):
        client.write(sent)


@asynccontextmanager
async def counted(database_url: str) -> AsyncIterator[Wire]:
    """Open such a way to the database; it has a URL of its own."""
    url, wire = make_url(database_url), Wire()

    async def connected(client: asyncio.StreamReader, to_client: asyncio.StreamWriter) -> None:
        server, to_server = await asyncio.open_connection(url.host, url.port)
        ways = [
            asyncio.create_task(wire.carry(client, to_server)),
            asyncio.create_task(_pass_on(server, to_client)),
        ]
        await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)  # either side may close
        to_server.close()
        to_client.close()
        await asyncio.gather(*ways, return_exceptions=True)

    async with await asyncio.start_server(connected, "127.0.0.1", 0) as listener:
        port = listener.sockets[0].getsockname()[1]
        wire.url = url.set(host="127.0.0.1", port=port).render_as_string(hide_password=False)
        yield wire
