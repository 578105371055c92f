"""A PostgreSQL that speaks TLS: ours does not, so what comes by TLS is passed on without it."""

import asyncio
import contextlib
import ssl
from collections.abc import AsyncIterator
from pathlib import Path

CERTIFICATE = Path(__file__).with_name("certificate.pem")
SSL_REQUEST_BYTES = 8


@contextlib.asynccontextmanager
async def speaking_tls(host: str, port: int) -> AsyncIterator[tuple[int, list[str]]]:
    """Listen on the loopback address for as long as the block.

    Yields the port, and a list of the ciphers of the connections that became encrypted.
    """
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(CERTIFICATE)
    ciphers: list[str] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError, asyncio.IncompleteReadError):  # a client that does not trust us
            await reader.readexactly(SSL_REQUEST_BYTES)
            writer.write(b"S")
            await writer.start_tls(context)
            ciphers.append(writer.get_extra_info("cipher")[0])
            from_server, to_server = await asyncio.open_connection(host, port)
            await asyncio.gather(copy(reader, to_server), copy(from_server, writer))
        writer.close()

    async with await asyncio.start_server(serve, host, 0) as server:
        yield server.sockets[0].getsockname()[1], ciphers


async def copy(source: asyncio.StreamReader, destination: asyncio.StreamWriter) -> None:
    with contextlib.suppress(OSError):
        while data := await source.read(2**16):
            destination.write(data)
            await destination.drain()
    destination.close()
