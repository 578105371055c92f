"""Downgrades that refuse to lose anything."""

from collections.abc import Mapping

import sqlalchemy as sa
from alembic import op


def refuse_to_lose(*tables: str, found: Mapping[str, str]) -> None:
    """Lock the tables, so that nothing comes after the look, and refuse while there is anything to lose.

    Args:
        tables: of this revision.
        found: statements that count something, each with what to say of it, after the number.

    Raises:
        RuntimeError: one of the counts is not zero; the transaction is to be rolled back.

    """
    op.execute(f"LOCK TABLE {', '.join(tables)} IN ACCESS EXCLUSIVE MODE")
    counted = {said: op.get_bind().execute(sa.text(count)).scalar_one() for count, said in found.items()}
    if any(counted.values()):
        losses = " ".join(f"{count} {said}" for said, count in counted.items() if count)
        msg = f"{losses} Nothing was changed."
        raise RuntimeError(msg)
