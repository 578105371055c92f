"""What becomes of a mismatch: it is logged and kept, and reads that moved fall back."""

import os
import platform
from collections.abc import Mapping
from dataclasses import dataclass

import asyncpg
import structlog

from shared.phase.comparison import Comparison, Mismatch
from shared.phase.fall_back import fall_back
from shared.phase.phases import Phase

logger = structlog.get_logger(__name__)

MOST_REMEMBERED = 10_000
LONGEST_ACTOR = 200

# $1 project, $2 collections, $3 their kinds, $4 epoch. By shadow_findings_pkey, which all enter in one order.
KEEP = """
    INSERT INTO shadow_findings (project_id, collection_id, kind, epoch)
    SELECT $1, found.collection_id, found.kind, $4
    FROM unnest($2::text[], $3::text[]) AS found (collection_id, kind)
    ORDER BY found.collection_id
    ON CONFLICT (project_id, collection_id) DO UPDATE SET
        kind = excluded.kind, epoch = greatest(shadow_findings.epoch, excluded.epoch),
        found_at = clock_timestamp(), found_times = shadow_findings.found_times + 1
"""


@dataclass(frozen=True, slots=True)
class Found:
    """The mismatches of one list."""

    project_id: str
    comparison: Comparison


class Mismatches:
    """What one process found. fell_back: how often it turned the phase back."""

    def __init__(self) -> None:
        self.fell_back = 0
        self._to_fall_back: Found | None = None
        self._logged: set[tuple[int, str, Mismatch]] = set()

    def log(self, found: Found, names: Mapping[str, str]) -> None:
        """Log each of them, once in an epoch: a list that differs is asked for again and again."""
        for mismatch in found.comparison.mismatches:
            one = (found.comparison.epoch, found.project_id, mismatch)
            if one in self._logged:
                continue
            if len(self._logged) >= MOST_REMEMBERED:
                self._logged.clear()
            self._logged.add(one)
            logger.warning(
                "shadow_mismatch",
                project_id=found.project_id,
                collection_id=mismatch.collection_id,
                kind=mismatch.kind,
                phase=found.comparison.phase.value,
                **names,
            )

    def note(self, found: Found) -> None:
        """Remember that reads have to fall back, until that was tried to its end."""
        if found.comparison.phase is Phase.READS_MOVED and found.comparison.falls_back:
            self._to_fall_back = found

    @property
    def is_settled(self) -> bool:
        return self._to_fall_back is None

    async def fall_back(self, connection: asyncpg.Connection) -> None:
        """Turn the phase back where that is still to be done; another process may have done it."""
        found = self._to_fall_back
        if found is None:
            return
        mismatch = found.comparison.mismatches[0]
        reason = (
            f"The list of project {found.project_id} differs, and no event and no dead letter explains it:"
            f" collection {mismatch.collection_id} is {mismatch.kind}."
        )
        began = await fall_back(connection, found.comparison.epoch, actor=own_actor(), reason=reason)
        self._to_fall_back = None
        if began is not None:
            self.fell_back += 1
            logger.error(
                "reads_fell_back",
                epoch=began,
                project_id=found.project_id,
                collection_id=mismatch.collection_id,
                kind=mismatch.kind,
            )


def own_actor() -> str:
    """Name this process as who turned the phase."""
    return f"collection-sync api {platform.node()}:{os.getpid()}"[:LONGEST_ACTOR]


async def keep(connection: asyncpg.Connection, found: Found) -> None:
    """Keep them as findings, as the last comparison saw them."""
    named = found.comparison.mismatches
    await connection.execute(
        KEEP,
        found.project_id,
        [mismatch.collection_id for mismatch in named],
        [mismatch.kind for mismatch in named],
        found.comparison.epoch,
    )
