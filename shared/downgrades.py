"""Downgrades of the schema, which refuse to lose anything."""

from collections.abc import Mapping

from sqlalchemy import Connection, text

from shared.migration_state import MigrationRefusedError


def refuse_to_lose(connection: Connection, *tables: str, found: Mapping[str, str]) -> None:
    """Lock the tables, so that nothing comes after the look, and refuse while there is anything to lose.

    Args:
        connection: in the migrations' transaction.
        tables: of this revision.
        found: statements that count something, each with what to say of it, after the number.

    Raises:
        MigrationRefusedError: one of the counts is not zero; the transaction is to be rolled back.

    """
    connection.execute(text(f"LOCK TABLE {', '.join(tables)} IN ACCESS EXCLUSIVE MODE"))
    counted = {said: connection.execute(text(count)).scalar_one() for count, said in found.items()}
    if any(counted.values()):
        losses = " ".join(f"{count} {said}" for said, count in counted.items() if count)
        msg = f"{losses} Nothing was changed."
        raise MigrationRefusedError(msg)
