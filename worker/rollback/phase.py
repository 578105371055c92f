"""The phase of the cutover, from under which a rollback takes nothing, and which it turns back."""

from sqlalchemy.ext.asyncio import AsyncConnection

from shared.phase.now import phase_now
from shared.phase.phases import Phase
from shared.phase.turn import MOVED, back_to_outbox
from worker.command_line.run import CommandError

ACTOR = "rollback"
REASON = "Phase 1 was rolled back: nothing is verified any more."


class ReadsMovedError(CommandError):
    """Lists are answered from what would be removed; the chunk in hand was not changed."""


async def refuse_while_moved(connection: AsyncConnection) -> Phase | None:
    """Return the phase, and keep it so until the transaction ends.

    Raises:
        ReadsMovedError: it says how to go back.

    """
    phase = await phase_now(connection, keep=True)
    if phase is Phase.READS_MOVED:
        raise ReadsMovedError(MOVED)
    return phase


async def turn_back(connection: AsyncConnection, phase: Phase | None) -> None:
    """Turn that phase, which the transaction keeps, back to Outbox."""
    if phase is not None:
        await back_to_outbox(connection, actor=ACTOR, reason=REASON)
