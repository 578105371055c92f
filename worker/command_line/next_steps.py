"""What to type next, as `python -m worker.status` says it: after a verdict that is not clean."""

from sqlalchemy.ext.asyncio import AsyncEngine

from shared.postgres.faults import is_transient
from shared.status.look import look
from shared.verdict.rules import answer_from
from worker.command_line.console import stdout


async def say_next_steps(engine: AsyncEngine) -> None:
    """Print the commands that go on from where the migration stands; none where PostgreSQL has just gone.

    A verdict alone does not know them: before the backfill, rows that are missing are no drift to repair.
    """
    try:
        steps = answer_from(await look(engine)).next_steps
    except Exception as error:
        if not is_transient(error):
            raise
        return
    if steps:
        stdout.say("", "Next:", *(f"  {step}" for step in steps))
