"""Following a run that another process drives, by its row alone, until it ends or nobody drives it."""

import argparse
import asyncio
from dataclasses import replace

from sqlalchemy.ext.asyncio import AsyncEngine

from shared import backfill_runs
from shared.backfill_runs import BackfillRun
from shared.process.orderly import FAILURE, SUCCESS
from worker.backfill import terminal
from worker.backfill.custody import read
from worker.backfill.machine import as_json
from worker.command_line.console import print_json, stderr, stdout
from worker.command_line.patience import Patience
from worker.command_line.verdict import say_verdict
from worker.rest import rest

LOOK_SECONDS = 0.5
SILENT_SECONDS = 10  # then its driver is not coming back


async def follow(engine: AsyncEngine, arguments: argparse.Namespace, interrupted: asyncio.Event) -> int:
    """Draw the bar of the latest run; at its end print what it did. Success where it is finished."""
    async with engine.connect() as connection:
        run = await backfill_runs.latest(connection)
    if run is None:
        return terminal.show_result(arguments, None, terminal.NONE_YET)
    run = await _until_it_stops(engine, run, interrupted)
    if arguments.json:
        print_json(as_json(run))
    else:
        say_verdict(run.status, terminal.summary(run))
        if run.status != "finished":
            stdout.say(terminal.what_now(run))
    return SUCCESS if run.status == "finished" else FAILURE


async def _until_it_stops(engine: AsyncEngine, run: BackfillRun, interrupted: asyncio.Event) -> BackfillRun:
    patience = Patience()
    with terminal.watching(stderr) as watch:
        while _goes_on(run) and not interrupted.is_set():
            watch(replace(run, throttled_by=run.throttled_by or _absence(run)))
            await rest(interrupted, LOOK_SECONDS)
            with patience.waiting():
                run = await read(engine, run.id)
        watch(run)
    return run


def _goes_on(run: BackfillRun) -> bool:
    """Return whether a process drives the run, or is to: one that is only slow is not given up at once."""
    is_heard = run.has_driver and run.heartbeat_age_seconds < SILENT_SECONDS
    return run.status == "running" and (is_heard or run.in_worker)


def _absence(run: BackfillRun) -> str | None:
    if run.is_driven:
        return None
    if not run.has_driver:
        return "no worker has taken it yet"
    return f"its driver has been silent for {run.heartbeat_age_seconds:.0f} s"
