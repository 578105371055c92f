"""The sequences that we draw from: whether they are ahead of what was drawn, and how much of them is left."""

import asyncpg

from shared.postgres.sequences import DRAWN_BY_US, SHARED, Sequence, SequenceFault, read_sequences
from worker.preflight.check import Found, Objection, stop, warn

EVERY = DRAWN_BY_US | SHARED
MUCH, NEARLY_ALL = 0.5, 0.95
HIGHEST = """
    SELECT relation, CASE atttypid WHEN 'int2'::regtype THEN 32767 ELSE 2147483647 END AS highest
    FROM unnest($1::text[]) AS ours (relation)
    JOIN pg_attribute ON attrelid = to_regclass(relation) AND attname = 'id'
    WHERE atttypid IN ('int2'::regtype, 'int4'::regtype)
"""


def unread(sequences: list[Sequence]) -> list[str]:
    """Name the sequences that our role may not read, or whose tables are locked: nothing is known of them."""
    return [
        sequence.name for sequence in sequences if sequence.name is not None and sequence.last_value is None
    ]


def faults_of(sequences: list[Sequence]) -> list[SequenceFault]:
    return [fault for sequence in sequences for fault in sequence.faults]


async def behind(connection: asyncpg.Connection) -> Found:
    """Look for sequences that would draw an id once more, or ids in another order than that of commits."""
    sequences = await read_sequences(connection, EVERY)
    objections = [_unread(name) for name in unread(sequences)]
    objections += [stop(f"{fault.what}.", fault.cure) for fault in faults_of(sequences)]
    return Found("Every sequence is ahead of what was drawn from it.", objections)


async def used_up(connection: asyncpg.Connection) -> Found:
    """Look how many of the ids that a column can hold are drawn."""
    highest = dict(await connection.fetch(HIGHEST, list(EVERY)))
    sequences = await read_sequences(connection, EVERY)
    objections = [_unread(name) for name in unread(sequences)]
    shares = []
    for sequence in sequences:
        if sequence.last_value is None or sequence.maximum is None:
            continue
        share = sequence.last_value / min(sequence.maximum, highest.get(sequence.table, sequence.maximum))
        shares += [f"{share:.1%} of {sequence.table}.id"] if sequence.table in SHARED else []
        if share >= MUCH:
            objections.append(_scarce(sequence, share))
    return Found(f"Ids that are drawn: {', '.join(shares)}.", objections)


def _scarce(sequence: Sequence, share: float) -> Objection:
    return (stop if share >= NEARLY_ALL else warn)(
        f"{share:.0%} of the ids that {sequence.table}.id can hold are drawn; without one no row comes in.",
        f"ALTER TABLE {sequence.table} ALTER COLUMN id TYPE bigint;"
        f" ALTER SEQUENCE {sequence.name} AS bigint; -- writes the table anew, under a lock",
    )


def _unread(name: str) -> Objection:
    return warn(
        f"could not look: {name} was not read; this login may not, or another session locks its table.",
        "Run this as the owner of the tables, or as an operator",
    )
