"""What the command does: show the capture, or change it."""

import argparse
import asyncio
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict

import structlog

from shared.capture import Capture, Writer, read_capture, read_writers
from shared.postgres.database import create_engine
from shared.process.orderly import FAILURE, SUCCESS
from shared.settings import CommandSettings
from worker.capture.change import change, place_of, plan
from worker.capture.definition import digest
from worker.capture.options import MODES
from worker.capture.statements import script
from worker.capture.unseen import NEVER_SEEN, unseen
from worker.command_line.console import print_json, stderr, stdout

logger = structlog.get_logger(__name__)

STATEMENT_TIMEOUT_SECONDS = 10
REPAIR = "python -m worker.capture install --mode"


async def execute(
    arguments: argparse.Namespace, settings: CommandSettings, interrupted: asyncio.Event
) -> int:
    """Show or change the capture, print the result and return the exit status."""
    engine = create_engine(
        settings,
        application_name="collection-sync capture",
        pool_size=1,
        statement_timeout_seconds=STATEMENT_TIMEOUT_SECONDS,
        checks_sequences=False,
        checks_writable=arguments.action != "status" and not arguments.sql,
    )
    mode: str | None = getattr(arguments, "mode", None)
    try:
        if arguments.action == "status":
            async with engine.begin() as connection:
                place = await place_of(connection)
                capture = await read_capture(connection)
                faults = list(faults_of(capture, digest(place)))
                writers = await read_writers(connection)
                not_seen = [*await unseen(connection), *NEVER_SEEN]
            _show(capture, faults, writers, not_seen, as_json=arguments.json)
            return FAILURE if faults else SUCCESS
        if arguments.sql:
            async with engine.begin() as connection:
                planned = await plan(connection, mode)
            sql = script(planned.statements) if planned.statements else ""
            if arguments.json:
                print_json({"sql": sql})
            else:
                stdout.out(sql or "-- It is so already.", end="" if sql else "\n")
            return SUCCESS
        planned = await change(engine, mode, interrupted=interrupted, watch=_report)
    finally:
        await engine.dispose()
    is_changed = bool(planned.statements)
    if is_changed:
        logger.info("capture_changed", mode=mode, before=planned.before.mode)
    if arguments.json:
        print_json({"mode": mode, "before": planned.before.mode, "changed": is_changed})
    else:
        stdout.say(_result(mode, is_changed=is_changed))
    return SUCCESS


def faults_of(capture: Capture, current: str) -> Iterator[str]:
    """Name what keeps an installed capture from working as this release means it, with what cures it."""
    if capture.mode is None and capture.left_over:
        yield "Triggers are there without a mode, and do nothing: python -m worker.capture remove."
    if capture.missing:
        names = ", ".join(capture.missing)
        yield f"Gone or disabled, so not everything is seen: {names}. {REPAIR} {capture.mode}."
    if capture.definition not in {None, current}:
        yield f"It is another release's, or another's: {REPAIR} {capture.mode}."


def _report(attempts: int) -> None:
    stderr.say(f"`collections` is in use; nothing was changed. Attempt {attempts + 1} follows.")


def _result(mode: str | None, *, is_changed: bool) -> str:
    if mode is None:
        return "Removed: nothing is captured any more." if is_changed else "It is not installed."
    return f"{'Installed' if is_changed else 'It is so already'}. {mode}: {MODES[mode]}."


def _show(
    capture: Capture,
    faults: Sequence[str],
    writers: Sequence[Writer],
    not_seen: Sequence[str],
    *,
    as_json: bool,
) -> None:
    if as_json:
        print_json(_machine(capture, faults, writers, not_seen))
        return
    if capture.mode is None:
        stdout.say("Not installed: writers that append no event are found by audits, afterwards.")
    else:
        since = f"{capture.installed_at:%Y-%m-%d %H:%M} by {capture.installed_by}"
        stdout.say(f"{capture.mode}: {MODES[capture.mode]}. Since {since} (times are the database's).")
    stdout.say(*faults, "", "Wrote past the outbox in the last 24 hours:")
    stdout.say(*(said_of(writer) for writer in writers) if writers else ["  nobody that was seen"])
    stdout.say("", "Not seen:", *(f"  {sentence}" for sentence in not_seen))


def said_of(writer: Writer) -> str:
    application = writer.application or "no application name"
    return (
        f"  {writer.role}, {application}: {writer.operation} {writer.writes:,} times,"
        f" last {writer.last_at:%Y-%m-%d %H:%M:%S}"
    )


def _machine(
    capture: Capture, faults: Sequence[str], writers: Sequence[Writer], not_seen: Sequence[str]
) -> Mapping[str, object]:
    return {
        "mode": capture.mode,
        "installed_by": capture.installed_by,
        "installed_at": capture.installed_at,
        "faults": list(faults),
        "writers": [asdict(writer) for writer in writers],
        "not_seen": list(not_seen),
    }
