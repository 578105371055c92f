"""What workers do with dead letters by themselves: close those that were overtaken, remove closed ones."""

import math
import time

import structlog
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine

from shared.dead_letters import HAS_A_NEWER_ONE, MOST_NAMED
from shared.postgres.database import autocommit

logger = structlog.get_logger(__name__)

LEAST_SECONDS = 1.0  # between two looks
SHARE = 20  # a look may take a twentieth of the time
PRUNED_AT_ONCE = 1_000
PRUNE_SECONDS = 60.0

# Served by outbox_dead_letters_open and applied_versions_pkey. The guard moves when an event is applied
# and never back, so what it shows beyond the letter was applied after it; unless versions went back, and the
# letter's event was appended after what was applied.
CLOSE_OVERTAKEN = text("""
    UPDATE outbox_dead_letters AS letter
    SET state = 'superseded', closed_at = clock_timestamp()
    FROM applied_versions AS guard
    WHERE letter.closed_at IS NULL
        AND guard.collection_id = letter.aggregate_id
        AND guard.version > letter.id
        AND (guard.dated_version = guard.version AND letter.created_at > guard.appended_at) IS NOT TRUE
    RETURNING letter.id
""")

# Served by outbox_dead_letters_open and outbox_dead_letters_of_aggregate. Of two that are buried at the same
# moment neither batch sees the other's, and the release before closes none of them.
CLOSE_OLDER = text(f"""
    UPDATE outbox_dead_letters
    SET state = 'superseded', closed_at = clock_timestamp()
    WHERE id = ANY(ARRAY(
        SELECT letter.id
        FROM outbox_dead_letters AS letter
        WHERE letter.closed_at IS NULL AND {HAS_A_NEWER_ONE}
        FOR UPDATE OF letter SKIP LOCKED
    ))
    RETURNING id
""")  # noqa: S608 - constants

# Served by outbox_dead_letters_closed and outbox_dead_letters_pkey.
PRUNE = text("""
    DELETE FROM outbox_dead_letters WHERE id = ANY(ARRAY(
        SELECT id FROM outbox_dead_letters
        WHERE closed_at < clock_timestamp() - make_interval(days => :days)
        ORDER BY closed_at
        LIMIT :most
        FOR UPDATE SKIP LOCKED
    ))
""")


async def close_overtaken(engine: AsyncEngine) -> list[int]:
    """Close the letters whose collection shows a newer event by now, or has a newer one; return their ids."""
    async with autocommit(engine) as connection:
        overtaken = (await connection.execute(CLOSE_OVERTAKEN)).scalars()
        return sorted([*overtaken, *(await connection.execute(CLOSE_OLDER)).scalars()])


async def prune(engine: AsyncEngine, days: int) -> int:
    """Remove letters that were closed `days` ago, a bounded number; return how many there were."""
    async with engine.begin() as connection:
        return (await connection.execute(PRUNE, {"days": days, "most": PRUNED_AT_ONCE})).rowcount


class LetterUpkeep:
    """Does both when it is time, in every worker; what one has done the others find done.

    retention_days: after which a closed letter is removed.
    """

    def __init__(self, engine: AsyncEngine, retention_days: int) -> None:
        self._engine = engine
        self._retention_days = retention_days
        self._next_look = -math.inf  # monotonic
        self._next_prune = -math.inf

    async def tend(self) -> None:
        """Close what was overtaken, unless that was done lately or takes long; once a minute prune."""
        began = time.monotonic()
        if began < self._next_look:
            return
        if superseded := await close_overtaken(self._engine):
            logger.info("dead_letters_superseded", letters=len(superseded), event_ids=superseded[:MOST_NAMED])
        ended = time.monotonic()
        self._next_look = began + max(LEAST_SECONDS, SHARE * (ended - began))
        if ended >= self._next_prune:
            pruned = await prune(self._engine, self._retention_days)
            self._next_prune = ended + (0 if pruned == PRUNED_AT_ONCE else PRUNE_SECONDS)
            if pruned:
                logger.info("dead_letters_pruned", letters=pruned)
