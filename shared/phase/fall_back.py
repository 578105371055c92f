"""Reads that moved go back by themselves: one statement, which of several processes at once turns once."""

from dataclasses import fields

import asyncpg

from shared.phase.phases import Phase
from shared.verdict.facts import Losses

LOST = ", ".join(f"'{field.name}', {field.name}" for field in fields(Losses) if field.name != "counted_at")

# $1 the epoch in which the mismatch was found, $2 actor, $3 reason. By migration_phase_pkey and
# going_back_losses_pkey. Who comes second waits for the first, and then finds another epoch.
FALL_BACK = f"""
    WITH turned AS (
        UPDATE migration_phase
        SET phase = '{Phase.SHADOW_READS}', epoch = epoch + 1, since = clock_timestamp(), actor = $2
        WHERE singleton AND phase = '{Phase.READS_MOVED}' AND epoch = $1 AND falls_back
        RETURNING epoch
    )
    INSERT INTO phase_turns (epoch, from_phase, to_phase, kind, actor, reason, forced, gates, losses)
    SELECT epoch, '{Phase.READS_MOVED}', '{Phase.SHADOW_READS}', 'fall_back', $2, $3, false, '[]', (
        SELECT jsonb_build_object('counted_at', extract(epoch FROM counted_at)::float8, {LOST})
        FROM going_back_losses WHERE singleton
    )
    FROM turned
    RETURNING epoch
"""  # noqa: S608 - constants


async def fall_back(connection: asyncpg.Connection, epoch: int, *, actor: str, reason: str) -> int | None:
    """Turn the phase from *reads moved* back to *shadow reads*, and record why.

    Args:
        connection: of the driver; the statement is a transaction of its own.
        epoch: of the phase in which a mismatch was found.
        actor: 1 to 200 characters.
        reason: recorded with the turn.

    Returns:
        The epoch that began; None where the phase was turned since, or does not fall back.

    Raises:
        asyncpg.PostgresError: another session holds the row for longer than `lock_timeout` (55P03).

    """
    began: int | None = await connection.fetchval(FALL_BACK, epoch, actor, reason)
    return began
