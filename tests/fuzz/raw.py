"""HTTP by hand: bytes to a real process, and what comes back."""

import asyncio
import contextlib
import re
from collections.abc import AsyncIterator, Iterable
from dataclasses import dataclass

from tests.processes import HANG_SECONDS

STATUS_LINE = re.compile(rb"HTTP/1\.1 (\d{3}) [^\r\n]*\r\n")
ANSWER_SECONDS = float(HANG_SECONDS)
END_OF_HEADERS = b"\r\n\r\n"


def request(method: str, path: str | bytes, *headers: bytes, body: bytes | None = None) -> bytes:
    """Put a request together; what is wrong in it is the caller's."""
    target = path if isinstance(path, bytes) else path.encode()
    lines = [method.encode() + b" " + target + b" HTTP/1.1", b"Host: api.example", *headers]
    if body is not None:
        lines.append(b"Content-Length: %d" % len(body))
    return b"\r\n".join(lines) + END_OF_HEADERS + (body or b"")


def chunked(chunks: Iterable[bytes]) -> bytes:
    """Encode the chunks, with the last one."""
    return b"".join(b"%x\r\n%s\r\n" % (len(chunk), chunk) for chunk in chunks) + b"0\r\n\r\n"


@dataclass(frozen=True)
class Received:
    """All that the server sent until it closed the connection or fell silent."""

    data: bytes
    is_closed: bool

    @property
    def statuses(self) -> list[int]:
        """Return the status of each answer; an answer's body holds no status line."""
        return [int(status) for status in STATUS_LINE.findall(self.data)]

    @property
    def headers(self) -> bytes:
        """Return the head of the first answer, in lower case."""
        return self.data.partition(END_OF_HEADERS)[0].lower()


class Connection:
    """A connection that says whatever it is told to."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer

    async def send(self, data: bytes) -> bool:
        """Send the bytes; return False when the server had enough."""
        try:
            self._writer.write(data)
            await self._writer.drain()
        except OSError:
            return False
        return not self._writer.is_closing()

    async def receive(self, seconds: float = ANSWER_SECONDS, *, answers: int = 1) -> Received:
        """Read until so many answers are whole as far as their length tells, or nothing more comes."""
        data = bytearray()
        is_closed = False
        whole = at = 0
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                while not (is_closed or whole >= answers):
                    try:
                        more = await self._reader.read(65_536)
                    except OSError:
                        more = b""
                    data += more
                    is_closed = not more
                    while (end := end_of_answer(data, at)) is not None:
                        whole += not data.startswith(b"HTTP/1.1 100", at)
                        at = end
        return Received(bytes(data), is_closed)


def end_of_answer(data: bytearray, at: int) -> int | None:
    """Return where the answer ends that begins there, if it has come in full."""
    end = data.find(END_OF_HEADERS, at)
    if end < 0:
        return None
    found = re.search(rb"content-length: (\d+)", data[at:end], re.IGNORECASE)
    end += len(END_OF_HEADERS) + (int(found[1]) if found else 0)
    return end if end <= len(data) else None


@contextlib.asynccontextmanager
async def connected(port: int) -> AsyncIterator[Connection]:
    """Open a connection and drop it at the end."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        yield Connection(reader, writer)
    finally:
        writer.transport.abort()


async def exchange(port: int, data: bytes, *, seconds: float = ANSWER_SECONDS, answers: int = 1) -> Received:
    """Send the bytes on a connection of their own and return what came back."""
    async with connected(port) as connection:
        await connection.send(data)
        return await connection.receive(seconds, answers=answers)
