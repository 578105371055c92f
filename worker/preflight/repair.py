"""`--repair-sequences`: run exactly the statements that the check prints, and look again."""

import argparse
import asyncio
from collections.abc import Iterator, Sequence

import asyncpg

from shared.postgres.advice import LACKS_TABLES
from shared.postgres.database import create_engine, driver_connection
from shared.postgres.faults import reason
from shared.postgres.sequences import SequenceFault, read_sequences
from shared.process.orderly import FAILURE, SUCCESS
from shared.settings import CommandSettings
from worker.command_line.console import print_json, stdout
from worker.command_line.run import CommandError
from worker.preflight.checks.sequences import EVERY, faults_of, unread

STATEMENT_TIMEOUT_SECONDS = 600  # ALTER TABLE … SET LOGGED writes the table anew
LOCK_TIMEOUT = "5s"  # sessions that come after ours wait as well


async def execute(
    arguments: argparse.Namespace, settings: CommandSettings, _interrupted: asyncio.Event
) -> int:
    """Repair what is wrong and return the exit status: success when every sequence is right afterwards."""
    engine = create_engine(
        settings,
        application_name="collection-sync preflight",
        pool_size=1,
        statement_timeout_seconds=STATEMENT_TIMEOUT_SECONDS,
        session={"lock_timeout": LOCK_TIMEOUT},
        checks_sequences=False,
    )
    try:
        async with driver_connection(engine) as connection:
            before = await read_sequences(connection, EVERY)
            if {sequence.table for sequence in before} != {*EVERY}:
                raise CommandError(LACKS_TABLES)
            faults = faults_of(before)
            refusals = [await _repair(connection, fault) for fault in faults]
            found = await read_sequences(connection, EVERY)
    finally:
        await engine.dispose()
    left, unknown = faults_of(found), unread(found)
    if arguments.json:
        done = [fault.cure for fault, refusal in zip(faults, refusals, strict=True) if refusal is None]
        print_json({"done": done, "left": [fault.cure for fault in left], "unread": unknown})
    else:
        for line in (*_results(faults, refusals), *_end(left, unknown)):
            stdout.say(line)
    return FAILURE if left or unknown else SUCCESS


async def _repair(connection: asyncpg.Connection, fault: SequenceFault) -> str | None:
    """Run the cure; return why PostgreSQL refuses it, or None."""
    try:
        await connection.execute(fault.cure)
    except asyncpg.PostgresError as error:
        return reason(error)
    return None


def _results(faults: Sequence[SequenceFault], refusals: Sequence[str | None]) -> Iterator[str]:
    for fault, refusal in zip(faults, refusals, strict=True):
        yield f"{fault.what}."
        yield f"{'done' if refusal is None else f'refused ({refusal})'}: {fault.cure}"


def _end(left: Sequence[SequenceFault], unknown: Sequence[str]) -> Iterator[str]:
    if left:
        yield "Not every sequence is right. Let the owner of the tables run:"
        yield from (fault.cure for fault in left)
    if unknown:
        yield f"Not read: {', '.join(unknown)}. Run the same as the tables' owner, while they are not locked."
    if not left and not unknown:
        yield "Every sequence is right."
