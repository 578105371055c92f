"""The command `python -m worker.backfill`."""

import argparse
import asyncio
import sys
from collections.abc import Awaitable, Callable
from functools import partial

from sqlalchemy import exists, select
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from shared import backfill_runs
from shared.backfill_runs import BackfillRun, NoUnfinishedRunError, RunUnfinishedError
from shared.database import create_engine
from shared.doorbell import Doorbell
from shared.legacy_tables import projects
from shared.settings import CommandSettings
from worker.backfill import report
from worker.backfill.bar import Bar
from worker.backfill.drive import STALL_HINT, drive, read
from worker.backfill.dry_run import dry_run
from worker.backfill.options import backfill_options, parse
from worker.backfill.pace import rest
from worker.backfill.progress import Speed
from worker.backfill.takeover import resume_when_left
from worker.backfill.whole import verify
from worker.command_line import (
    FAILURE,
    SUCCESS,
    CommandError,
    doorbell_of,
    print_json,
    run_command,
    stderr,
    stdout,
)

STATEMENT_TIMEOUT_SECONDS = 60  # counting ten million rows on a slow disk
LOOK_SECONDS = 0.25
SPEED_LOOKS = 4


async def execute(
    arguments: argparse.Namespace, settings: CommandSettings, interrupted: asyncio.Event
) -> int:
    """Do what was asked and return the exit status."""
    engine = create_engine(
        settings,
        application_name="collection-sync backfill",
        pool_size=3,
        statement_timeout_seconds=STATEMENT_TIMEOUT_SECONDS,
    )
    try:
        match arguments.action:
            case "status":
                return await show_status(engine, arguments, interrupted)
            case "dry_run":
                return await show_dry_run(engine, arguments, interrupted)
            case "pause":
                return await change(engine, arguments, backfill_runs.pause)
            case "cancel":
                return await change(engine, arguments, backfill_runs.cancel)
        run = await obtain(engine, arguments, interrupted)
        if arguments.in_worker:
            return tell(arguments, run, f"Backfill {run.id} is left to the workers. Look with --status.")
        async with doorbell_of(settings) as doorbell:
            return await run_to_the_end(engine, arguments, run, interrupted, doorbell)
    except NoUnfinishedRunError as error:
        raise CommandError(str(error)) from error
    finally:
        await engine.dispose()


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
        stdout.print(report.audit_summary(audited), markup=False, soft_wrap=True)
    return SUCCESS if audited.verdict in report.GOOD_VERDICTS else FAILURE


def say_stalled(pending: int) -> None:
    """Tell the person at the terminal why nothing goes on; others find it in the log."""
    if stderr.is_terminal:
        stderr.print(f"{pending:,} events are pending and none is settled: {STALL_HINT}", markup=False)


async def show_status(engine: AsyncEngine, arguments: argparse.Namespace, interrupted: asyncio.Event) -> int:
    """Show the latest run; one that is being driven is watched for a second, to tell its speed."""
    async with engine.connect() as connection:
        run = await backfill_runs.latest(connection)
    if run is None:
        return tell(arguments, None, "No backfill has run yet.")
    speed, rows_a_second = Speed(), None
    for _ in range(SPEED_LOOKS * run.is_driven):
        rows_a_second = speed.sample(run.processed)
        await rest(interrupted, LOOK_SECONDS)
        run = await read(engine, run.id)
        rows_a_second = speed.sample(run.processed)
    if arguments.json:
        print_json({**report.as_json(run), "rows_a_second": rows_a_second})
    else:
        stdout.print(report.status_lines(run, rows_a_second), markup=False, soft_wrap=True)
    return SUCCESS


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
        stdout.print(report.dry_run_summary(result), markup=False, soft_wrap=True)
    return SUCCESS if result.finished else FAILURE


async def change(
    engine: AsyncEngine,
    arguments: argparse.Namespace,
    how: Callable[[AsyncConnection], Awaitable[BackfillRun]],
) -> int:
    """Pause or cancel the unfinished run; a driver stops after its present chunk, which is done by then."""
    async with engine.begin() as connection:
        run = await how(connection)
    return tell(arguments, run, report.what_now(run))


def tell(arguments: argparse.Namespace, run: BackfillRun | None, sentence: str) -> int:
    """Print the result: the sentence, or for a machine the run."""
    if arguments.json:
        print_json({"status": None} if run is None else report.as_json(run))
    else:
        stdout.print(sentence, markup=False, soft_wrap=True)
    return SUCCESS


if __name__ == "__main__":
    sys.exit(run_command("backfill", partial(execute, parse(sys.argv[1:]))))
