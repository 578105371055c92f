"""The capture in the database: whether it is installed, and whom it saw."""

from sqlalchemy.ext.asyncio import AsyncConnection

from shared.capture import read_capture, read_last_counted, read_writers
from shared.verdict.facts import Captured, PastTheOutbox


async def captured(connection: AsyncConnection) -> Captured:
    """Return how it is installed, and who wrote past the outbox in the last day, the latest first."""
    capture = await read_capture(connection)
    writers = await read_writers(connection)
    last_at = await read_last_counted(connection)
    return Captured(
        capture.mode,
        is_whole=not capture.missing,
        writers=[
            PastTheOutbox(
                writer.role, writer.application, writer.operation, writer.writes, writer.last_at.timestamp()
            )
            for writer in writers
        ],
        installed_at=None if capture.installed_at is None else capture.installed_at.timestamp(),
        last_at=None if last_at is None else last_at.timestamp(),
    )
