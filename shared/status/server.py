"""The server and the schema: what has to be right before anything else is worth a look."""

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

from shared.postgres.read_only import NEW_SESSIONS_ARE_READ_ONLY
from shared.postgres.sequences import read_sequences
from shared.verdict.facts import Server

LOOK = text(f"""
    SELECT extract(epoch FROM clock_timestamp())::float8 AS now, pg_is_in_recovery() AS is_standby,
        {NEW_SESSIONS_ARE_READ_ONLY} AS is_read_only
""")  # noqa: S608 - a constant


async def server(connection: AsyncConnection) -> Server:
    found = (await connection.execute(LOOK)).one()
    return Server(found.now, is_standby=found.is_standby, is_read_only=found.is_read_only)


async def sequence_faults(connection: AsyncConnection) -> list[str] | None:
    """Return what is wrong with the sequences that we draw from; None where one of them was not read."""
    raw = await connection.get_raw_connection()
    found = await read_sequences(raw.driver_connection)
    faults = [fault.what for sequence in found for fault in sequence.faults]
    is_unread = any(sequence.name is not None and sequence.last_value is None for sequence in found)
    return None if is_unread and not faults else faults
