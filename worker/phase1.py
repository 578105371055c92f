"""What phase 1's script does: fill `project_collections` and prove it, or take it back."""

import argparse
import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Mapping

from sqlalchemy.ext.asyncio import AsyncEngine

from shared import backfill_runs
from shared.audit_runs import AuditOptions, AuditRun
from shared.backfill_runs import BackfillOptions, BackfillRun, NoUnfinishedRunError, RunUnfinishedError
from shared.phase.phases import Phase
from shared.phase.turn import MOVED
from shared.postgres.database import create_engine
from shared.process.orderly import FAILURE, SUCCESS
from shared.settings import CommandSettings
from worker.audit.run import audit
from worker.backfill.dry_run import dry_run
from worker.backfill.proof import verify
from worker.backfill.run import drive
from worker.backfill.takeover import resume_when_left
from worker.backfill.terminal import watching, what_now
from worker.command_line.bar import Bar
from worker.command_line.console import print_json, stderr, stdout
from worker.command_line.question import agreed, can_ask
from worker.command_line.ringing import doorbell_of
from worker.command_line.run import CommandError
from worker.rest import rest
from worker.rollback.busy import connected_workers, who_is_busy
from worker.rollback.run import plan, roll_back
from worker.rollback.tally import Rollback
from worker.settled import stall_sentence

STATEMENT_TIMEOUT_SECONDS = 60  # counting ten million rows on a slow disk
PENDING_LOOKS = 5
PENDING_SECONDS = 1
GO_ON = "Call this script again to go on."

Statistics = Mapping[str, object]
HowToRollBack = Callable[..., Awaitable[Rollback]]


async def execute(options: argparse.Namespace, settings: CommandSettings, interrupted: asyncio.Event) -> int:
    """Fill, look or take back, and return the exit status."""
    kind = "rollback" if options.rollback else "backfill"
    engine = create_engine(
        settings,
        application_name=f"collection-sync {kind}",
        pool_size=3,
        statement_timeout_seconds=STATEMENT_TIMEOUT_SECONDS,
    )
    try:
        if options.rollback:
            return await take_back(engine, options, interrupted)
        if options.dry_run:
            return await look(engine, options, interrupted)
        return await fill(engine, options, settings, interrupted)
    finally:
        await engine.dispose()


async def fill(
    engine: AsyncEngine, options: argparse.Namespace, settings: CommandSettings, interrupted: asyncio.Event
) -> int:
    """Backfill, wait, compare and print the statistics; success only when all agrees."""
    await warn_without_worker(engine)
    run = await run_whole(engine, settings, interrupted)
    audited = await prove(engine, run, interrupted)
    statistics = statistics_of(run, audited)
    show(options, statistics)
    if statistics["match"]:
        return SUCCESS
    say(discord(audited))
    return FAILURE


async def warn_without_worker(engine: AsyncEngine) -> None:
    """Print that no worker would apply what is enqueued; one may also be started afterwards."""
    async with engine.connect() as connection:
        if await connected_workers(connection):
            return
    say("No worker is connected to this database. Start one with `python -m worker`: this waits for it.")


async def run_whole(
    engine: AsyncEngine, settings: CommandSettings, interrupted: asyncio.Event
) -> BackfillRun:
    """Bring the unfinished run to its end, or a new one; after one of a single project one of all."""
    async with doorbell_of(settings, engine) as doorbell:
        while True:
            run = await obtain(engine, interrupted)
            with watching(stderr) as watch:
                run = await drive(engine, run.id, interrupted=interrupted, doorbell=doorbell, watch=watch)
            if run.status != "finished":
                raise CommandError(what_now(run) if run.is_driven else f"Backfill {run.id} stopped. {GO_ON}")
            if run.project_id is None:
                return run


async def obtain(engine: AsyncEngine, interrupted: asyncio.Event) -> BackfillRun:
    """Begin a run, or take the one that was interrupted or paused, so that it waits for this process."""
    while True:
        with contextlib.suppress(RunUnfinishedError):
            async with engine.begin() as connection:
                return await backfill_runs.start(connection, BackfillOptions())
        with contextlib.suppress(NoUnfinishedRunError):  # it has just come to its end elsewhere
            run = await resume_when_left(engine, in_worker=False, interrupted=interrupted)
            done = f"{run.processed:,} of {run.planned:,} rows were done"
            say(f"Backfill {run.id} was not finished: {done}. Going on there.")
            return run


async def prove(engine: AsyncEngine, run: BackfillRun, interrupted: asyncio.Event) -> AuditRun:
    """Audit once the run's events are applied; while live writes are pending, look again a few times."""
    audited = await verify(engine, run, interrupted=interrupted, on_stall=say_stalled)
    for _ in range(PENDING_LOOKS):
        if audited is None or audited.verdict != "pending":
            break
        await rest(interrupted, PENDING_SECONDS)
        audited = await audit(engine, AuditOptions(), requested_by="backfill", interrupted=interrupted)
    if audited is None or audited.status != "finished":
        raise CommandError(f"Stopped before it was proved that all is applied. {GO_ON}")
    return audited


def say(sentence: str) -> None:
    """Print what is not the result."""
    stderr.say(sentence)


def say_stalled(pending: int) -> None:
    """Print why nothing goes on."""
    say(stall_sentence(pending))


def statistics_of(run: BackfillRun, audited: AuditRun) -> Statistics:
    """Return the numbers that the runbook asks for, by the names that operators know."""
    return {
        "processed": run.processed,
        "backfilled": run.enqueued,
        "skipped": run.skipped,
        "active_collections": audited.active_collections,
        "home_rows": audited.home_rows,
        "match": audited.verdict == "in_sync",
    }


def discord(audited: AuditRun) -> str:
    """Return what does not agree, and what to do."""
    kinds = f"{audited.missing:,} missing, {audited.mismatched:,} mismatched, {audited.orphaned:,} orphaned"
    match audited.verdict:
        case "pending":
            return f"No drift, but {audited.pending:,} events still wait. {GO_ON}"
        case "incomplete":
            return f"The comparison came to no verdict: {audited.error} Call this script again."
        case _:
            return (
                f"The tables do not agree: {kinds}. `python -m worker.audit` lists what differs,"
                " `python -m worker.dead_letters list` the events that no worker can apply, and why."
            )


async def look(engine: AsyncEngine, options: argparse.Namespace, interrupted: asyncio.Event) -> int:
    """Print what a backfill would do."""
    with watching(stderr) as watch:
        found = await dry_run(engine, BackfillOptions(), interrupted=interrupted, watch=watch)
    if not found.finished:
        msg = "Stopped before all rows were looked at. Nothing was changed."
        raise CommandError(msg)
    counts = {"processed": found.processed, "backfilled": found.enqueued, "skipped": found.skipped}
    show(options, {**counts, "dry_run": True}, "Dry run: nothing was changed.")
    return SUCCESS


async def take_back(engine: AsyncEngine, options: argparse.Namespace, interrupted: asyncio.Event) -> int:
    """Roll back, or print what that would do; where a person can be asked and agrees, do it then."""
    if options.yes:
        await act(engine, options, interrupted, roll_back)
        return SUCCESS
    planned = await act(engine, options, interrupted, plan)
    is_moved = planned.phase is Phase.READS_MOVED
    if is_moved:
        say(MOVED)
    async with engine.connect() as connection:
        busy = await who_is_busy(connection)
    if busy is not None:
        say(f"{busy} Stop the workers before --yes.")
    if is_moved or busy is not None or options.dry_run or options.json or not can_ask():
        return SUCCESS
    if await agreed("Take phase 1 back?", interrupted):
        await act(engine, options, interrupted, roll_back)
        return SUCCESS
    msg = "Nothing was changed."
    raise CommandError(msg)


async def act(
    engine: AsyncEngine, options: argparse.Namespace, interrupted: asyncio.Event, how: HowToRollBack
) -> Rollback:
    """Carry it out, print what came of it, and return it."""
    with Bar(stderr) as bar:
        bar.show("Rollback")
        done = await how(engine, interrupted=interrupted, watch=lambda so_far: bar.show(progress_of(so_far)))
    show(options, done.counts(), outcome_of(done))
    if not options.json:
        show_kept(done)
    return done


def progress_of(done: Rollback) -> str:
    """Return how far a rollback is."""
    removed = "would be removed" if done.dry_run else "removed"
    return f"Rollback: {done.removed:,} rows {removed}, {done.kept:,} kept"


def outcome_of(done: Rollback) -> str:
    """Return in one sentence what a rollback did, or would do."""
    if done.dry_run:
        phase = " The phase would go back to Outbox." * done.turns_phase
        return (
            f"Dry run: {done.removed:,} rows would be removed and {done.discarded_events:,} pending events"
            f" discarded; {done.kept:,} rows would stay.{phase}"
            " Nothing was changed; --rollback --yes does it."
        )
    phase = " The phase went back to Outbox." * done.turns_phase
    return (
        f"Rolled back: {done.removed:,} rows that this system had made are gone; {done.kept:,} rows stay."
        f" {done.discarded_events:,} pending events were discarded.{phase} `collections` was not touched."
    )


def show_kept(done: Rollback) -> None:
    """List the first of the rows that stay, each with its reason. Ids are to be copied: none is wrapped."""
    if not done.listed:
        return
    is_whole = len(done.listed) == done.kept
    print_line("rows that stay:" if is_whole else f"the first of {done.kept:,} rows that stay:")
    for row in done.listed:
        print_line(f"  project {row.project_id}  collection {row.collection_id}  {row.reason}")


def show(options: argparse.Namespace, numbers: Statistics, sentence: str | None = None) -> None:
    """Print the result: one line for a machine, or a sentence and aligned lines."""
    if options.json:
        print_json(numbers)
        return
    if sentence is not None:
        print_line(sentence)
    for name, value in numbers.items():
        shown = f"{value:,}" if type(value) is int else str(value).lower()
        print_line(f"{name.replace('_', ' '):<20}{shown:>14}")


def print_line(line: str) -> None:
    """Print one line of the result."""
    stdout.say(line)
