"""Comparisons of lists that take something else for a mismatch, or for the phase."""

from dataclasses import replace

import asyncpg
import pytest

from api.shadow import sampler
from shared.pair import COLUMNS, COMPARED, EXPECTED
from shared.phase import comparison
from shared.phase.comparison import Comparison
from shared.phase.comparison import compare as right_compare
from tests.twins.replacing import replaced

ONE_SIDE = f"SELECT collection_id, {EXPECTED} FROM collections WHERE project_id = $1 AND is_active"  # noqa: S608 - constants
# The legacy side as it was seen, under the names that it has there.
SEEN = f"""
    FROM unnest($3::text[], $4::text[], $5::timestamptz[], $6::timestamptz[])
        AS seen (collection_id, {", ".join(COMPARED.values())})
    WHERE true
"""


async def compare_in_two_statements(
    connection: asyncpg.Connection, project_id: str, most: int = comparison.MOST_COLLECTIONS
) -> Comparison | None:
    """Read one side, look at the clock, and read the other: on two snapshots."""
    seen = await connection.fetch(ONE_SIDE, project_id)
    await connection.execute("SELECT clock_timestamp(), clock_timestamp()")
    sides = [[row[name] for row in seen] for name in ("collection_id", *COLUMNS)]
    both = replaced(comparison.COMPARE, "FROM collections WHERE project_id = $1 AND is_active", SEEN)
    row = await connection.fetchrow(both, project_id, most, *sides)
    return comparison.told(row)


def remember_the_phase(patch: pytest.MonkeyPatch) -> None:
    """Let a process know the phase as it was when it first compared."""
    first: list[Comparison] = []

    async def compare(connection: asyncpg.Connection, project_id: str) -> Comparison | None:
        compared = await right_compare(connection, project_id)
        if compared is None:
            return None
        first.append(compared)
        return replace(compared, phase=first[0].phase, epoch=first[0].epoch)

    patch.setattr(sampler, "compare", compare)
