"""The phase of the cutover, from under which a rollback takes nothing, and which it turns back."""

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

from shared.phase.phases import Phase
from shared.phase.turn import MOVED, back_to_outbox
from worker.command_line.run import CommandError

ACTOR = "rollback"
REASON = "Phase 1 was rolled back: nothing is verified any more."

# One row at most: by migration_phase_pkey.
LOOK = text("SELECT phase FROM migration_phase WHERE singleton")
# Whoever turns it waits for the chunk. Who reads does not.
KEEP = text(f"{LOOK.text} FOR UPDATE")


class ReadsMovedError(CommandError):
    """Lists are answered from what would be removed; the chunk in hand was not changed."""


async def phase_now(connection: AsyncConnection) -> Phase | None:
    """Return the phase; None where its row is gone, so that reads are not moved."""
    return _known((await connection.execute(LOOK)).scalar())


async def refuse_while_moved(connection: AsyncConnection) -> Phase | None:
    """Return the phase, and keep it so until the transaction ends.

    Raises:
        ReadsMovedError: it says how to go back.

    """
    phase = _known((await connection.execute(KEEP)).scalar())
    if phase is Phase.READS_MOVED:
        raise ReadsMovedError(MOVED)
    return phase


async def turn_back(connection: AsyncConnection, phase: Phase | None) -> None:
    """Turn that phase, which the transaction keeps, back to Outbox."""
    if phase is not None:
        await back_to_outbox(connection, actor=ACTOR, reason=REASON)


def _known(word: str | None) -> Phase | None:
    return None if word is None else Phase(word)
