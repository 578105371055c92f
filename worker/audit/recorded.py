"""The command `findings`: what an audit that has ended wrote down of what it found, a page at a time."""

import argparse
import asyncio

from sqlalchemy.ext.asyncio import AsyncEngine

from shared.audit_runs import AuditRun, fetch
from shared.postgres.database import create_engine
from shared.process.orderly import SUCCESS
from shared.settings import CommandSettings
from worker.audit import listing, terminal
from worker.audit.command import STATEMENT_TIMEOUT_SECONDS
from worker.audit.findings import first_findings
from worker.command_line.console import print_json, stdout
from worker.command_line.run import CommandError
from worker.command_line.verdict import say_verdict


async def execute(
    arguments: argparse.Namespace,
    settings: CommandSettings,
    interrupted: asyncio.Event,  # noqa: ARG001 - as every command takes it
) -> int:
    """Print a page of the run's findings."""
    engine = create_engine(
        settings,
        application_name="collection-sync audit",
        pool_size=1,
        statement_timeout_seconds=STATEMENT_TIMEOUT_SECONDS,
    )
    try:
        run = await read(engine, arguments.run)
        findings = await first_findings(engine, run.id, arguments.findings, arguments.after)
    finally:
        await engine.dispose()
    if arguments.json:
        listed = listing.as_objects(findings)
        print_json({"run_id": run.id, "verdict": run.verdict, "found": run.found, "findings": listed})
        return SUCCESS
    say_verdict(run.verdict, f"Audit {run.id}: {terminal.sentence(run)}")
    listing.show(run, findings, arguments.findings)
    if not findings:
        stdout.say("No finding of it is written down." if arguments.after is None else "No further finding.")
    return SUCCESS


async def read(engine: AsyncEngine, run_id: int) -> AuditRun:
    """Return the audit.

    Raises:
        CommandError: there is none, or it has not ended.

    """
    async with engine.connect() as connection:
        run = await fetch(connection, run_id)
    if run is None:
        raise CommandError(f"There is no audit {run_id}. They are removed after 30 days.")
    if run.finished_at is None:
        raise CommandError(f"Audit {run_id} has not ended yet: it is {run.status}.")
    return run
