"""The turns of the phase, the newest first."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import text
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.ext.asyncio import AsyncConnection

MOST_TURNS = 20

# Served by phase_turns_pkey, read backwards.
TURNS = text("""
    SELECT epoch, turned_at, from_phase, to_phase, kind, actor, reason, forced,
        ARRAY(
            SELECT gate ->> 'title' FROM jsonb_array_elements(gates) AS gate
            WHERE NOT (gate ->> 'is_met')::boolean
        ) AS unmet,
        losses
    FROM phase_turns WHERE epoch <= :epoch ORDER BY epoch DESC LIMIT :most
""").columns(losses=JSONB)


@dataclass(frozen=True, slots=True)
class PastTurn:
    """A turn. kind: advance, back or fall_back; unmet: titles of the gates that it was forced past.

    losses: what going back would have lost then, as `Losses`; None: it was not counted.
    """

    epoch: int
    turned_at: datetime
    from_phase: str
    to_phase: str
    kind: str
    actor: str
    reason: str | None
    forced: bool
    unmet: Sequence[str]
    losses: Mapping[str, float] | None


async def turns(connection: AsyncConnection, epoch: int) -> list[PastTurn]:
    """Return the turns that led to this epoch, bounded."""
    found = await connection.execute(TURNS, {"epoch": epoch, "most": MOST_TURNS})
    return [PastTurn(*row) for row in found]
