"""What a command does with a run that it starts or goes on with: drive it, wait for it, or only count it."""

import argparse
import asyncio

from sqlalchemy import exists, select
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from shared import backfill_runs
from shared.backfill_runs import BackfillOptions, BackfillRun, RunUnfinishedError
from shared.choices import DEFAULT_MAX_PENDING
from shared.redis.doorbell import Doorbell
from shared.settings import CommandSettings
from shared.tables.legacy import projects
from worker.backfill import report
from worker.backfill.bar import Bar
from worker.backfill.control import engine_of, tell
from worker.backfill.drive import STALL_HINT, drive
from worker.backfill.dry_run import dry_run
from worker.backfill.takeover import resume_when_left
from worker.backfill.whole import verify
from worker.command_line.ringing import doorbell_of
from worker.command_line.run import FAILURE, SUCCESS, CommandError, print_json, stderr, stdout


async def execute(
    arguments: argparse.Namespace, settings: CommandSettings, interrupted: asyncio.Event
) -> int:
    """Do what was asked and return the exit status."""
    async with engine_of(settings) as engine:
        if arguments.action == "dry_run":
            return await show_dry_run(engine, arguments, interrupted)
        run = await obtain(engine, arguments, interrupted)
        if arguments.in_worker:
            return tell(arguments, run, f"Backfill {run.id} is left to the workers. Look with --status.")
        async with doorbell_of(settings, engine) as doorbell:
            return await run_to_the_end(engine, arguments, run, interrupted, doorbell)


def backfill_options(arguments: argparse.Namespace) -> BackfillOptions:
    """Return what a new run is to do."""
    return BackfillOptions(
        project_id=arguments.project,
        rate=arguments.rate,
        max_pending=arguments.max_pending or DEFAULT_MAX_PENDING,
        in_worker=arguments.in_worker,
    )


async def obtain(
    engine: AsyncEngine, arguments: argparse.Namespace, interrupted: asyncio.Event
) -> BackfillRun:
    """Create a run or take the unfinished one, so that it waits for us or for the workers."""
    if arguments.action == "resume":
        return await resume_when_left(engine, in_worker=arguments.in_worker, interrupted=interrupted)
    options = backfill_options(arguments)
    async with engine.begin() as connection:
        await require_project(connection, options.project_id)
        try:
            return await backfill_runs.start(connection, options)
        except RunUnfinishedError as error:
            raise CommandError(report.what_now(error.run)) from error


async def require_project(connection: AsyncConnection, project_id: str | None) -> None:
    """Complain of a project that does not exist: a mistyped one would pass for one without collections."""
    if project_id is None:
        return
    found = await connection.execute(
        select(exists(projects.c.project_id).where(projects.c.project_id == project_id))
    )
    if not found.scalar_one():
        raise CommandError(f"There is no project {project_id!r}.")


async def run_to_the_end(
    engine: AsyncEngine,
    arguments: argparse.Namespace,
    run: BackfillRun,
    interrupted: asyncio.Event,
    doorbell: Doorbell | None,
) -> int:
    """Drive the run, verify it where that was asked for, and say what came of it."""
    with Bar(stderr) as bar:
        run = await drive(engine, run.id, interrupted=interrupted, doorbell=doorbell, watch=bar)
    if run.status != "finished":
        tell(arguments, run, report.summary(run))
        raise CommandError(report.what_now(run))
    if arguments.wait:
        return await show_proof(engine, arguments, run, interrupted)
    return tell(arguments, run, report.summary(run))


async def show_proof(
    engine: AsyncEngine, arguments: argparse.Namespace, run: BackfillRun, interrupted: asyncio.Event
) -> int:
    """Wait until the run's events are applied, audit, and say what came of it."""
    if not arguments.json:
        tell(arguments, run, report.summary(run))
    audited = await verify(engine, run, interrupted=interrupted, on_stall=say_stalled)
    if arguments.json:
        print_json({**report.as_json(run), "audit": report.audit_as_json(audited)})
    if audited is None:
        msg = "All is enqueued. Workers go on applying it; check with `python -m worker.audit`."
        raise CommandError(msg)
    if not arguments.json:
        stdout.say(report.audit_summary(audited))
    return SUCCESS if audited.verdict in report.GOOD_VERDICTS else FAILURE


def say_stalled(pending: int) -> None:
    """Tell the person at the terminal why nothing goes on; others find it in the log."""
    if stderr.is_terminal:
        stderr.say(f"{pending:,} events are pending and none is settled: {STALL_HINT}")


async def show_dry_run(engine: AsyncEngine, arguments: argparse.Namespace, interrupted: asyncio.Event) -> int:
    """Say what a run would do."""
    options = backfill_options(arguments)
    async with engine.connect() as connection:
        await require_project(connection, options.project_id)
    with Bar(stderr) as bar:
        result = await dry_run(engine, options, interrupted=interrupted, watch=bar)
    if arguments.json:
        print_json(report.dry_run_as_json(result))
    else:
        stdout.say(report.dry_run_summary(result))
    return SUCCESS if result.finished else FAILURE
