"""The way to a server, through a port of ours: it can be cut in the middle of a command, and held up."""

import asyncio
import contextlib
import socket
import struct
from collections.abc import AsyncIterator, Iterator
from typing import Self

from deploy.local.service import LOOPBACK, Service

CHUNK_BYTES = 65_536
AT_ONCE = struct.pack("ii", 1, 0)  # SO_LINGER: what is closed is reset, what was not sent is lost
PATIENCE_SECONDS = 10


class Channel:
    """All connections to one server of a group of processes."""

    def __init__(self, server: Service) -> None:
        """Lead to this server, which may stop and start."""
        self.cuts = 0
        self.port = 0
        self._server = server
        self._fuse: int | None = None
        self._burnt = asyncio.Event()
        self._open = asyncio.Event()
        self._open.set()
        self._pairs: set[asyncio.Task[None]] = set()

    @contextlib.asynccontextmanager
    async def listening(self) -> AsyncIterator[Self]:
        """Forward connections for as long as the block."""
        server = await asyncio.start_server(self._accept, LOOPBACK, 0)
        self.port = server.sockets[0].getsockname()[1]
        try:
            yield self
        finally:
            server.close()
            for pair in self._pairs:
                pair.cancel()
            await asyncio.gather(*self._pairs, return_exceptions=True)

    async def cut(self, after_bytes: int) -> bool:
        """Reset the connection that carries the byte after so many; say whether one did in time."""
        self._burnt.clear()
        self._fuse = after_bytes
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._burnt.wait(), PATIENCE_SECONDS)
        self._fuse = None
        return self._burnt.is_set()

    @contextlib.contextmanager
    def held(self) -> Iterator[None]:
        """Keep every byte back, in both directions, for as long as the block."""
        self._open.clear()
        try:
            yield
        finally:
            self._open.set()

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        pair = asyncio.current_task()
        assert pair is not None
        self._pairs.add(pair)
        try:
            there_reader, there_writer = await asyncio.open_connection(LOOPBACK, self._server.port)
        except OSError:
            reset(writer)
        else:
            await self._forward((reader, there_writer), (there_reader, writer))
        finally:
            self._pairs.discard(pair)

    async def _forward(self, *ways: tuple[asyncio.StreamReader, asyncio.StreamWriter]) -> None:
        """Carry bytes both ways until one side ends; then end both, as a router does that was restarted."""
        pumps = [asyncio.create_task(self._pump(*way)) for way in ways]
        try:
            await asyncio.wait(pumps, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for pump in pumps:
                pump.cancel()
            await asyncio.gather(*pumps, return_exceptions=True)
            for _, writer in ways:
                reset(writer)

    async def _pump(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(CHUNK_BYTES):
            await self._open.wait()
            if self._fuse is not None and len(data) > self._fuse:
                writer.write(data[: self._fuse])
                self._fuse = None
                self.cuts += 1
                self._burnt.set()
                return
            if self._fuse is not None:
                self._fuse -= len(data)
            writer.write(data)
            await writer.drain()


def reset(writer: asyncio.StreamWriter) -> None:
    """End a connection at once, with RST."""
    connection = writer.get_extra_info("socket")  # None when it ended before
    if connection is not None:
        with contextlib.suppress(OSError):
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, AT_ONCE)
    writer.transport.abort()
