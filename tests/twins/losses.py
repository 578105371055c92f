"""Counts of what going back would lose that are of several moments."""

from dataclasses import replace

import pytest
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

from shared.enriched import holds_anything
from shared.phase import losses
from shared.verdict.facts import Losses

right_count = losses.count_and_keep
TAGS = text(f"SELECT count(*) FROM project_collections AS target WHERE {holds_anything('tags')}")  # noqa: S608 - a constant


def count_kind_by_kind(patch: pytest.MonkeyPatch) -> None:
    """Count tags in a statement of their own."""

    async def counted(connection: AsyncConnection) -> Losses:
        tags = (await connection.execute(TAGS)).scalar_one()
        return replace(await right_count(connection), tags=tags)

    patch.setattr("tests.phase.test_losses.count_and_keep", counted)
