"""`report`: one turn, with what spoke for it and what it costs to go back, as a page that can be signed."""

import argparse
import asyncio

from sqlalchemy import text
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.ext.asyncio import AsyncConnection

from shared.phase.phases import TITLES, Phase
from shared.process.orderly import SUCCESS
from shared.settings import TurnSettings
from shared.status.cutover import COUNTS
from shared.status.session import engine_of, looking
from shared.verdict.facts import Shadow
from worker.command_line.console import print_json, stdout
from worker.command_line.run import CommandError
from worker.command_line.writing import STDOUT, write_page
from worker.phase.page import Report, page

# Served by phase_turns_pkey, read backwards where none is asked for.
TURN = text("""
    SELECT epoch, turned_at, from_phase, to_phase, kind, actor, reason, forced, gates, losses,
        current_database() AS database, clock_timestamp() AS now
    FROM phase_turns WHERE epoch <= :epoch ORDER BY epoch DESC LIMIT 1
""").columns(gates=JSONB, losses=JSONB)
# Served by phase_turns_pkey.
NEXT = text("""
    SELECT epoch, turned_at, to_phase, kind, actor FROM phase_turns
    WHERE epoch > :epoch ORDER BY epoch LIMIT 1
""")
# Served by audit_runs_by_end, read from that moment on, backwards and forwards, up to the first that count,
# and by audit_runs_pkey.
AUDITS = text("""
    SELECT id, finished_at, status, verdict, compared, missing + mismatched + orphaned AS found, pending,
        repaired
    FROM audit_runs
    WHERE id = ANY(ARRAY(
        (SELECT id FROM audit_runs
        WHERE finished_at <= :at AND project_id IS NULL AND requested_by <> 'rollback'
        ORDER BY finished_at DESC LIMIT 3)
        UNION ALL
        (SELECT id FROM audit_runs
        WHERE finished_at > :at AND project_id IS NULL AND requested_by <> 'rollback'
        ORDER BY finished_at LIMIT 2)
    ))
    ORDER BY finished_at
""")
LAST = 2**63 - 1


async def execute(options: argparse.Namespace, settings: TurnSettings, interrupted: asyncio.Event) -> int:
    """Write the page and say where."""
    del interrupted  # it takes a moment
    async with engine_of(settings) as engine, looking(engine) as connection:
        report = await read(connection, options.epoch)
    try:
        write_page(options.html, page(report))
    except (OSError, ValueError) as error:
        why = error.strerror if isinstance(error, OSError) else error
        raise CommandError(f"{options.html} cannot be written: {why}.") from error
    if options.html == STDOUT:
        return SUCCESS
    if options.json:
        print_json({"epoch": report.epoch, "phase": report.to_phase, "file": str(options.html)})
    else:
        stdout.say(f"Turn {report.epoch}, to {TITLES[report.to_phase]}, is written to {options.html}.")
    return SUCCESS


async def read(connection: AsyncConnection, epoch: int | None) -> Report:
    """Return the turn of that number, or the last.

    Raises:
        CommandError: there is no such turn.

    """
    row = (await connection.execute(TURN, {"epoch": epoch or LAST})).one_or_none()
    if row is None or epoch not in {None, row.epoch}:
        msg = "The phase was never turned." if epoch is None else f"There is no turn {epoch}."
        raise CommandError(f"{msg} python -m worker.phase status lists the last turns.")
    turn = row._asdict() | {"from_phase": Phase(row.from_phase), "to_phase": Phase(row.to_phase)}
    counts = (await connection.execute(COUNTS, {"epoch": row.epoch - 1})).one()
    return Report(
        **turn,
        shadow=Shadow(*counts),
        audits=(await connection.execute(AUDITS, {"at": row.turned_at})).all(),
        left=(await connection.execute(NEXT, {"epoch": row.epoch})).one_or_none(),
    )
