"""The way to a server, through a port of ours: it can be cut in the middle of a command, and held up."""

import asyncio
import contextlib
import socket
import struct
from collections.abc import AsyncIterator, Iterator
from typing import Self, cast

from deploy.local.service import LOOPBACK, Service
from tests.processes import HANG_SECONDS

AT_ONCE = struct.pack("ii", 1, 0)  # SO_LINGER: what is closed is reset, what was not sent is lost


class Channel:
    """All connections to one server of a group of processes."""

    def __init__(self, server: Service) -> None:
        """Lead to this server, which may stop and start."""
        self.port = 0
        self._server = server
        self._fuse: int | None = None
        self._burnt = asyncio.Event()
        self._is_held = False
        self._kept: list[tuple[Side, bytes]] = []
        self._sides: set[Side] = set()
        self._connecting: set[asyncio.Task[None]] = set()

    @contextlib.asynccontextmanager
    async def listening(self) -> AsyncIterator[Self]:
        """Forward connections for as long as the block."""
        loop = asyncio.get_running_loop()
        listener = await loop.create_server(lambda: Side(self), LOOPBACK, 0)
        self.port = listener.sockets[0].getsockname()[1]
        try:
            yield self
        finally:
            listener.close()
            for task in self._connecting:
                task.cancel()
            await asyncio.gather(*self._connecting, return_exceptions=True)
            for side in self._sides.copy():
                side.reset()
            await asyncio.sleep(0)  # until the transports are gone

    async def cut(self, after_bytes: int) -> bool:
        """Reset the connection that carries the byte after so many; say whether one did in time."""
        self._burnt.clear()
        self._fuse = after_bytes
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._burnt.wait(), HANG_SECONDS)
        self._fuse = None
        return self._burnt.is_set()

    @contextlib.contextmanager
    def held(self) -> Iterator[None]:
        """Keep every byte back, in both directions, for as long as the block."""
        self._is_held = True
        try:
            yield
        finally:
            self._is_held = False
            kept, self._kept = self._kept, []
            for side, data in kept:
                self.carry(side, data)

    def lead_to(self, server: Service) -> None:
        """Lead whoever connects from now on to another server; connections that are open stay as they are."""
        self._server = server

    def opened(self, side: "Side") -> None:
        """Lead a connection that a process opened on to the server."""
        self._sides.add(side)
        if side.other is None:
            task = asyncio.create_task(self._connect(side))
            self._connecting.add(task)
            task.add_done_callback(self._connecting.discard)

    def closed(self, side: "Side") -> None:
        self._sides.discard(side)

    def carry(self, side: "Side", data: bytes) -> None:
        """Take what a side sent to the other one, as far as it comes."""
        if self._is_held:
            self._kept.append((side, data))
        elif self._fuse is not None and len(data) > self._fuse:
            side.pass_on(data[: self._fuse])
            self._fuse = None
            self._burnt.set()
            side.reset()
        else:
            self._fuse = None if self._fuse is None else self._fuse - len(data)
            side.pass_on(data)

    async def _connect(self, near: "Side") -> None:
        near.transport.pause_reading()
        loop = asyncio.get_running_loop()
        try:
            await loop.create_connection(lambda: Side(self, near), LOOPBACK, self._server.port or 0)
        except OSError:
            near.reset()
        else:
            near.transport.resume_reading()


class Side(asyncio.Protocol):
    """One of the two connections that a way consists of."""

    transport: asyncio.Transport

    def __init__(self, channel: Channel, other: "Side | None" = None) -> None:
        self.other = other
        self._channel = channel

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast("asyncio.Transport", transport)
        self._channel.opened(self)
        if self.other is not None:
            self.other.other = self
            if self.other.transport.is_closing():
                self.reset()

    def data_received(self, data: bytes) -> None:
        self._channel.carry(self, data)

    def pass_on(self, data: bytes) -> None:
        if self.other is not None and not self.other.transport.is_closing():
            self.other.transport.write(data)

    def connection_lost(self, error: Exception | None) -> None:
        """End the other connection in the same way."""
        self._channel.closed(self)
        if self.other is not None:
            if error is None:
                self.other.transport.close()
            else:
                self.other.reset()

    def reset(self) -> None:
        """End the connection at once, with RST, and with it the other one."""
        connection = self.transport.get_extra_info("socket")  # None, or of no file, when it ended before
        if connection is not None:
            with contextlib.suppress(OSError, ValueError):
                connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, AT_ONCE)
        self.transport.abort()
        if self.other is not None and not self.other.transport.is_closing():
            self.other.reset()
