"""The command's actions on runs that it does not drive: look at them, change, pause or cancel one."""

import argparse
import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable

from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from shared import backfill_runs
from shared.backfill_runs import BackfillRun, NoUnfinishedRunError
from shared.postgres.database import create_engine
from shared.process.orderly import SUCCESS
from shared.settings import CommandSettings
from worker.backfill import terminal
from worker.backfill.custody import read
from worker.backfill.follow import follow
from worker.backfill.machine import as_json
from worker.backfill.overview import list_lines, status_lines
from worker.backfill.speed import Speed
from worker.backfill.terminal import show_result
from worker.command_line.console import print_json, stdout
from worker.command_line.run import CommandError
from worker.rest import rest

STATEMENT_TIMEOUT_SECONDS = 60  # counting ten million rows on a slow disk
STATUS_LOOK_SECONDS = 0.25
STATUS_LOOKS = 4


async def execute(
    arguments: argparse.Namespace, settings: CommandSettings, interrupted: asyncio.Event
) -> int:
    """Show, change, pause or cancel, and return the exit status."""
    async with engine_of(settings) as engine:
        match arguments.action:
            case "pause":
                return await change(engine, arguments, backfill_runs.pause)
            case "cancel":
                return await change(engine, arguments, backfill_runs.cancel)
            case "set_rate":
                return await set_rate(engine, arguments)
            case "follow":
                return await follow(engine, arguments, interrupted)
            case "list":
                return await show_list(engine, arguments)
            case _:
                return await show_status(engine, arguments, interrupted)


@contextlib.asynccontextmanager
async def engine_of(settings: CommandSettings) -> AsyncIterator[AsyncEngine]:
    """Lend an engine.

    Raises:
        CommandError: the block needed an unfinished run, and there is none.

    """
    engine = create_engine(
        settings,
        application_name="collection-sync backfill",
        pool_size=3,
        statement_timeout_seconds=STATEMENT_TIMEOUT_SECONDS,
    )
    try:
        yield engine
    except NoUnfinishedRunError as error:
        raise CommandError(str(error)) from error
    finally:
        await engine.dispose()


async def show_status(engine: AsyncEngine, arguments: argparse.Namespace, interrupted: asyncio.Event) -> int:
    """Show the latest run; one that is being driven is watched for a second, for its speed."""
    async with engine.connect() as connection:
        run = await backfill_runs.latest(connection)
    if run is None:
        return show_result(arguments, None, terminal.NONE_YET)
    speed, rows_a_second = Speed(), None
    for _ in range(STATUS_LOOKS * run.is_driven):
        rows_a_second = speed.sample(run.processed)
        await rest(interrupted, STATUS_LOOK_SECONDS)
        run = await read(engine, run.id)
        rows_a_second = speed.sample(run.processed)
    if arguments.json:
        print_json({**as_json(run), "rows_a_second": rows_a_second})
    else:
        for line in status_lines(run, rows_a_second):
            stdout.print(line, soft_wrap=True)
    return SUCCESS


async def show_list(engine: AsyncEngine, arguments: argparse.Namespace) -> int:
    """Show the newest runs, the newest first."""
    async with engine.connect() as connection:
        listed = await backfill_runs.newest(connection)
    if arguments.json:
        print_json({"runs": [as_json(run) for run in listed]})
    elif not listed:
        stdout.say(terminal.NONE_YET)
    else:
        for line in list_lines(listed):
            stdout.print(line, soft_wrap=True)
    return SUCCESS


async def set_rate(engine: AsyncEngine, arguments: argparse.Namespace) -> int:
    """Give the unfinished run another rate, which its driver keeps to from the next chunk on."""
    async with engine.begin() as connection:
        run = await backfill_runs.set_rate(connection, arguments.set_rate or None)
    return show_result(arguments, run, terminal.rate_sentence(run))


async def change(
    engine: AsyncEngine,
    arguments: argparse.Namespace,
    how: Callable[[AsyncConnection], Awaitable[BackfillRun]],
) -> int:
    """Pause or cancel the unfinished run; a driver stops after its present chunk, which is done by then."""
    async with engine.begin() as connection:
        run = await how(connection)
    return show_result(arguments, run, terminal.what_now(run))
