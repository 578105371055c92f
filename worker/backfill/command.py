"""The command: it starts or resumes a run and drives it, waits for its proof, or only counts."""

import argparse
import asyncio

from sqlalchemy.ext.asyncio import AsyncEngine

from shared import backfill_runs
from shared.backfill_runs import BackfillOptions, BackfillRun, RunUnfinishedError
from shared.choices import DEFAULT_MAX_PENDING
from shared.process.orderly import FAILURE, SUCCESS
from shared.redis.doorbell import Doorbell
from shared.settings import CommandSettings
from worker.audit.terminal import sentence
from worker.backfill import machine, terminal
from worker.backfill.control import engine_of
from worker.backfill.dry_run import dry_run
from worker.backfill.proof import verify
from worker.backfill.run import drive
from worker.backfill.takeover import resume_when_left
from worker.backfill.terminal import show_result
from worker.command_line.console import print_json, stderr, stdout
from worker.command_line.next_steps import say_next_steps
from worker.command_line.projects import require_project
from worker.command_line.ringing import doorbell_of
from worker.command_line.run import CommandError
from worker.command_line.verdict import say_verdict
from worker.settled import stall_sentence


async def execute(
    arguments: argparse.Namespace, settings: CommandSettings, interrupted: asyncio.Event
) -> int:
    """Start, resume or dry-run, and return the exit status."""
    async with engine_of(settings) as engine:
        if arguments.action == "dry_run":
            return await show_dry_run(engine, arguments, interrupted)
        run = await obtain(engine, arguments, interrupted)
        if arguments.in_worker:
            return show_result(
                arguments, run, f"Backfill {run.id} is left to the workers. Follow it with --follow."
            )
        async with doorbell_of(settings, engine) as doorbell:
            return await run_to_the_end(engine, arguments, run, interrupted, doorbell)


def _options_of(arguments: argparse.Namespace) -> BackfillOptions:
    return BackfillOptions(
        project_id=arguments.project,
        rate=arguments.rate,
        max_pending=arguments.max_pending or DEFAULT_MAX_PENDING,
        in_worker=arguments.in_worker,
    )


async def obtain(
    engine: AsyncEngine, arguments: argparse.Namespace, interrupted: asyncio.Event
) -> BackfillRun:
    """Create a run or take the unfinished one, so that it waits for this process or for the workers."""
    if arguments.action == "resume":
        return await resume_when_left(engine, in_worker=arguments.in_worker, interrupted=interrupted)
    options = _options_of(arguments)
    await require_project(engine, options.project_id)
    async with engine.begin() as connection:
        try:
            return await backfill_runs.start(connection, options)
        except RunUnfinishedError as error:
            raise CommandError(terminal.what_now(error.run)) from error


async def run_to_the_end(
    engine: AsyncEngine,
    arguments: argparse.Namespace,
    run: BackfillRun,
    interrupted: asyncio.Event,
    doorbell: Doorbell | None,
) -> int:
    """Drive the run, verify it where that was asked for, and print the result."""
    with terminal.watching(stderr) as watch:
        run = await drive(engine, run.id, interrupted=interrupted, doorbell=doorbell, watch=watch)
    if run.status != "finished":
        show_result(arguments, run, terminal.summary(run))
        raise CommandError(terminal.what_now(run))
    if arguments.wait:
        return await show_proof(engine, arguments, run, interrupted)
    return show_result(arguments, run, terminal.summary(run))


async def show_proof(
    engine: AsyncEngine, arguments: argparse.Namespace, run: BackfillRun, interrupted: asyncio.Event
) -> int:
    """Wait until the run's events are applied, audit, and print the verdict."""
    if not arguments.json:
        show_result(arguments, run, terminal.summary(run))
    audited = await verify(engine, run, interrupted=interrupted, on_stall=say_stalled)
    if arguments.json:
        print_json({**machine.as_json(run), "audit": machine.audit_as_json(audited)})
    if audited is None:
        msg = "All is enqueued. Workers go on applying it; check with `python -m worker.audit`."
        raise CommandError(msg)
    if not arguments.json:
        say_verdict(audited.verdict, sentence(audited))
    if audited.verdict in terminal.GOOD_VERDICTS:
        return SUCCESS
    if not arguments.json:
        await say_next_steps(engine)
    return FAILURE


def say_stalled(pending: int) -> None:
    """Print why nothing goes on, at a terminal only: elsewhere it is in the log."""
    if stderr.is_terminal:
        stderr.say(stall_sentence(pending))


async def show_dry_run(engine: AsyncEngine, arguments: argparse.Namespace, interrupted: asyncio.Event) -> int:
    """Print what a run would do; nothing is written."""
    options = _options_of(arguments)
    await require_project(engine, options.project_id)
    with terminal.watching(stderr) as watch:
        result = await dry_run(engine, options, interrupted=interrupted, watch=watch)
    if arguments.json:
        print_json(machine.dry_run_as_json(result))
    else:
        stdout.say(terminal.dry_run_summary(result))
    return SUCCESS if result.finished else FAILURE
