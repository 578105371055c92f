"""One look at everything: the facts of one moment."""

from dataclasses import replace
from functools import partial

from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from shared.migration_state import read_revision
from shared.revision import REVISION
from shared.status import captured, cutover, history, letters, server, waiting
from shared.status.session import Parts, looking
from shared.verdict.facts import Facts


async def look(engine: AsyncEngine) -> Facts:
    """Read what the verdict rests on, in about a dozen statements, each by an index or bounded.

    Raises:
        sqlalchemy.exc.DBAPIError, OSError, TimeoutError: PostgreSQL did not answer.

    """
    async with looking(engine) as connection:
        return await read_facts(connection)


async def read_facts(connection: AsyncConnection) -> Facts:
    """Do the same on this connection, which is in a transaction."""
    parts = Parts(connection)
    seen = await server.server(connection)
    revision = await parts.read("schema", read_revision)
    seen = replace(seen, revision=revision)
    if "schema" not in parts.unknown and (revision is None or revision < REVISION):
        return Facts(seen)
    lanes = await parts.read("lanes", waiting.lanes)
    opened = await parts.read("letters", letters.letters)
    if opened:
        there = await parts.read("collections", partial(letters.at_home, found=opened))
        if there is not None:
            opened = [replace(letter, has_home=letter.collection_id in there) for letter in opened]
    return Facts(
        server=seen,
        sequence_faults=await parts.read("sequences", server.sequence_faults),
        workers=await parts.read("workers", waiting.workers),
        lanes=None if lanes is None else lanes[0],
        later_versions=None if lanes is None else lanes[1],
        holders=await parts.read("holders", waiting.holders),
        history=await parts.read("history", history.history),
        letters=opened,
        captured=await parts.read("captured", captured.captured),
        cutover=await parts.read("cutover", cutover.cutover),
        unknown=parts.unknown,
    )
