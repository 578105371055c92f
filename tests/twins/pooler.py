"""Sessions through a pooler that are not what they must be."""

from collections.abc import Mapping

import asyncpg
import pytest

from shared.postgres.pooler import PooledConnection, pooled_connection


def without_settings(_session: Mapping[str, str]) -> type[PooledConnection]:
    return pooled_connection({})


async def believe_that_they_are_in_force(_connection: asyncpg.Connection, _session: object) -> None:
    """Ask nothing."""


def give_no_settings(patch: pytest.MonkeyPatch) -> None:
    """Begin transactions without their settings, and do not notice."""
    patch.setattr("shared.postgres.pooler.pooled_connection", without_settings)
    patch.setattr("shared.postgres.pooler.require_in_force", believe_that_they_are_in_force)
