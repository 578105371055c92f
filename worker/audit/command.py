"""The command: audit once, or again and again, and print what came out."""

import argparse
import asyncio
import contextlib

from sqlalchemy.ext.asyncio import AsyncEngine

from shared.audit_runs import AuditOptions, AuditRun
from shared.postgres.database import create_engine
from shared.process.orderly import FAILURE, SUCCESS
from shared.redis.doorbell import Doorbell
from shared.settings import CommandSettings
from worker.audit import listing, terminal
from worker.audit.findings import Finding, first_findings
from worker.audit.run import audit
from worker.audit.watch_lines import WatchLines
from worker.command_line.console import print_json, stderr, stdout
from worker.command_line.next_steps import say_next_steps
from worker.command_line.patience import Patience
from worker.command_line.projects import require_project
from worker.command_line.ringing import doorbell_of
from worker.command_line.run import CommandError
from worker.command_line.verdict import say_verdict, tone
from worker.custody import RunLostError
from worker.rest import rest

AWAY_LOOK_SECONDS = 1  # while PostgreSQL is away
STATEMENT_TIMEOUT_SECONDS = 30  # of all but the comparison, which has its own
CLEAN = {"in_sync", "pending"}
PROVED = {*CLEAN, "repaired"}
JSON_COUNTS = (
    "compared", "planned", "missing", "mismatched", "orphaned", "pending", "repaired",
    "active_collections", "home_rows", "canary_found",
)  # fmt: skip


async def execute(
    arguments: argparse.Namespace, settings: CommandSettings, interrupted: asyncio.Event
) -> int:
    """Audit once, or with --watch until interrupted, and return the exit status of the last pass."""
    engine = create_engine(
        settings,
        application_name="collection-sync audit",
        pool_size=1 + arguments.connections,
        statement_timeout_seconds=STATEMENT_TIMEOUT_SECONDS,
    )
    try:
        await require_project(engine, arguments.project)
        async with doorbell_of(settings, engine) as doorbell:
            go = audit_repeatedly if arguments.watch else one_pass
            run = await go(engine, arguments, interrupted, doorbell)
    except RunLostError as error:
        raise CommandError(str(error)) from error
    finally:
        await engine.dispose()
    return SUCCESS if run and run.status == "finished" and run.verdict in PROVED else FAILURE


async def audit_repeatedly(
    engine: AsyncEngine,
    arguments: argparse.Namespace,
    interrupted: asyncio.Event,
    doorbell: Doorbell | None,
) -> AuditRun | None:
    """Audit until interrupted, or until nobody reads the results; return the last pass, if there was one.

    Once PostgreSQL was there, it is waited for while it is away. A pass that a worker took up meanwhile is
    that worker's.
    """
    async with engine.connect():
        pass  # a mistyped address would be waited for in vain
    interval = 60 if arguments.interval is None else arguments.interval
    patience, lines = Patience(), WatchLines()
    run: AuditRun | None = None
    while True:
        with patience.waiting(), contextlib.suppress(RunLostError):
            run = await one_pass(engine, arguments, interrupted, doorbell, before=run, lines=lines)
        if patience.is_away:
            lines.forget()
        await rest(interrupted, min(interval, AWAY_LOOK_SECONDS) if patience.is_away else interval)
        if interrupted.is_set() or stdout.is_abandoned:
            return None if patience.is_away else run


async def one_pass(  # noqa: PLR0913 - a watch hands on what it remembers
    engine: AsyncEngine,
    arguments: argparse.Namespace,
    interrupted: asyncio.Event,
    doorbell: Doorbell | None,
    *,
    before: AuditRun | None = None,
    lines: WatchLines | None = None,
) -> AuditRun:
    """Audit, print the result and return it; where an interrupt cut this pass short, return `before`."""
    options = AuditOptions(project_id=arguments.project, repair=arguments.repair)
    with terminal.watching(stderr) as watch:
        run = await audit(
            engine,
            options,
            requested_by="command",
            interrupted=interrupted,
            doorbell=doorbell,
            watch=watch,
            connections=arguments.connections,
            repair_dead=arguments.repair_dead,
        )
    if before is not None and run.status != "finished":
        return before
    findings = await first_findings(engine, run.id, arguments.findings) if run.found else []
    show(arguments, run, findings, lines)
    if not arguments.json and lines is None and run.verdict not in CLEAN:
        await say_next_steps(engine)
    return run


def show(
    arguments: argparse.Namespace, run: AuditRun, findings: list[Finding], lines: WatchLines | None
) -> None:
    """Print the result: one line for a machine or a watcher, otherwise sentence, counts and findings."""
    if arguments.json:
        print_json(as_json(run, findings))
    elif lines is not None:
        stdout.say(lines.line(run, findings), style=tone(run.verdict))
    else:
        say_verdict(run.verdict, terminal.sentence(run))
        stdout.print(terminal.counts_table(run))
        listing.show(run, findings, arguments.findings)


def as_json(run: AuditRun, findings: list[Finding]) -> dict[str, object]:
    """Return the line that a machine reads. Counts are as found, also where they were repaired."""
    counts = {name: getattr(run, name) for name in JSON_COUNTS}
    reason = {"status": run.status, "error": run.error, "duration_seconds": run.duration_seconds}
    listed = {"findings": listing.as_objects(findings)}
    return {"run_id": run.id, "verdict": run.verdict, **counts, **reason, **listed}
