"""The open dead letters, as far as they decide what to do with them."""

from collections.abc import Sequence

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

from shared.verdict.facts import Letter

MOST_LETTERS = 1_000

# Served by outbox_dead_letters_open and outbox_dead_letters_of_aggregate; an EXISTS might be hashed, whole.
OPEN = text("""
    SELECT letter.id, letter.aggregate_id, letter.sqlstate, coalesce((
        SELECT true FROM outbox_dead_letters AS earlier
        WHERE earlier.aggregate_id = letter.aggregate_id AND earlier.replayed_as = letter.id
        ORDER BY earlier.aggregate_id, earlier.id LIMIT 1
    ), false) AS is_replay
    FROM outbox_dead_letters AS letter
    WHERE letter.closed_at IS NULL
    ORDER BY letter.id LIMIT :most
""")
# Served by collections_pkey.
AT_HOME = text("SELECT collection_id FROM collections WHERE collection_id = ANY(:collection_ids)")


async def letters(connection: AsyncConnection) -> list[Letter]:
    return [Letter(*row) for row in await connection.execute(OPEN, {"most": MOST_LETTERS})]


async def at_home(connection: AsyncConnection, found: Sequence[Letter]) -> set[str]:
    """Return those of their collections that are there: a replay appends the state of no other."""
    ids = [letter.collection_id for letter in found]
    return set((await connection.execute(AT_HOME, {"collection_ids": ids})).scalars())
