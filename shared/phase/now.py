"""Which phase it is, as a statement sees it."""

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

from shared.phase.phases import Phase

# One row at most: by migration_phase_pkey.
LOOK = text("SELECT phase FROM migration_phase WHERE singleton")
# Until the transaction ends nobody turns it. Who reads does not wait.
KEEP = text(f"{LOOK.text} FOR UPDATE")


async def phase_now(connection: AsyncConnection, *, keep: bool = False) -> Phase | None:
    """Return the phase; None where its row is gone, so that reads are not moved.

    Args:
        connection: asked once.
        keep: let nobody turn the phase until the connection's transaction ends.

    """
    word: str | None = (await connection.execute(KEEP if keep else LOOK)).scalar()
    return None if word is None else Phase(word)
