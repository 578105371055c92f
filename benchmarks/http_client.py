"""A client that costs far less than the API it measures: of HTTP it speaks no more than ours answers."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Self

from benchmarks.bench import require

OK = b"HTTP/1.1 200 "
LENGTH = b"\r\ncontent-length: "


class HttpClient:
    """Sends one request after the other, as the user who owns everything."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer

    @classmethod
    @asynccontextmanager
    async def connected(cls, port: int) -> AsyncIterator[Self]:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        try:
            yield cls(reader, writer)
        finally:
            writer.close()

    async def ask(self, method: str, path: str, body: bytes = b"", headers: str = "") -> bytes:
        """Send one request, further lines of its head each ended by CRLF; return its answer's body."""
        head, content = await self.exchange(method, path, body, headers)
        require(head.startswith(OK), f"{method} {path} is answered with 200: {head!r}{content!r}")
        return content

    async def exchange(
        self, method: str, path: str, body: bytes = b"", headers: str = ""
    ) -> tuple[bytes, bytes]:
        """Send one request and return its answer's head and body, whatever it says.

        Raises:
            OSError, asyncio.IncompleteReadError: the connection is gone.

        """
        head = (
            f"{method} {path} HTTP/1.1\r\nHost: api\r\nUser-ID: owner\r\n{headers}"
            f"Content-Length: {len(body)}\r\n\r\n"
        )
        self._writer.write(head.encode() + body)
        answer = await self._reader.readuntil(b"\r\n\r\n")
        length = answer.partition(LENGTH)[2].partition(b"\r\n")[0]
        return answer, await self._reader.readexactly(int(length))
