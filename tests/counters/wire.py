"""What a client sends to PostgreSQL, counted where nothing escapes: on the way there."""

from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from pydantic import SecretStr

from deploy.local.service import Service
from shared.settings import Settings
from tests.chaos.network import Channel, Side

PROTOCOL_3 = 196608  # what a startup message says, and no other message without a type
EXECUTED = ("E", "Q")  # Execute, Query
ANSWERED = ("S", "H", "Q", "p", "startup")  # Sync, Flush and so on: what a client waits for an answer to


class Wire(Channel):
    """All connections of some clients to one PostgreSQL; counts the messages that they send, by type."""

    def __init__(self, server: Service) -> None:
        super().__init__(server)
        self.sent: Counter[str] = Counter()
        self._unread: dict[Side, bytes] = {}
        self._started: set[Side] = set()

    @property
    def statements(self) -> int:
        return sum(self.sent[kind] for kind in EXECUTED)

    @property
    def round_trips(self) -> int:
        return sum(self.sent[kind] for kind in ANSWERED)

    def opened(self, side: Side) -> None:
        super().opened(side)
        if side.other is None:  # a client's, which leads nowhere yet
            self._unread[side] = b""

    def carry(self, side: Side, data: bytes) -> None:
        if side in self._unread:
            self._unread[side] = self._read(side, self._unread[side] + data)
        super().carry(side, data)

    def _read(self, side: Side, data: bytes) -> bytes:
        """Count the messages that are complete and return the rest."""
        while True:
            head = int(side in self._started)  # the byte of the type
            size = head + int.from_bytes(data[head : head + 4], "big")
            if len(data) < max(size, head + 4):
                return data
            self._note(side, data[:size])
            data = data[size:]

    def _note(self, side: Side, message: bytes) -> None:
        if side in self._started:
            self.sent[chr(message[0])] += 1
        else:
            self.sent["startup"] += 1
            if int.from_bytes(message[4:8], "big") == PROTOCOL_3:
                self._started.add(side)


@asynccontextmanager
async def counted(server: Service, settings: Settings) -> AsyncIterator[tuple[Wire, Settings]]:
    """Yield a wire to the server, and settings that lead a client along it."""
    async with Wire(server).listening() as wire:
        url = settings.database_url.get_secret_value().replace(f":{server.port}/", f":{wire.port}/")
        yield wire, settings.model_copy(update={"database_url": SecretStr(url)})
