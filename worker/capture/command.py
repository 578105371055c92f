"""`install` and `remove`: change the capture, or print the SQL that would."""

import argparse
import asyncio

import structlog

from shared.process.orderly import SUCCESS
from shared.settings import CommandSettings
from worker.capture.change import change, engine_of, plan
from worker.capture.options import MODES
from worker.capture.statements import script
from worker.command_line.console import print_json, stderr, stdout

logger = structlog.get_logger(__name__)


async def execute(
    arguments: argparse.Namespace, settings: CommandSettings, interrupted: asyncio.Event
) -> int:
    """Change the capture, or with --sql look only; print the result and return the exit status."""
    mode: str | None = getattr(arguments, "mode", None)
    async with engine_of(settings) as engine:
        if arguments.sql:
            async with engine.begin() as connection:
                planned = await plan(connection, mode)
            _print_sql(script(planned.statements) if planned.statements else "", as_json=arguments.json)
            return SUCCESS
        planned = await change(engine, mode, interrupted=interrupted, watch=_report)
    is_changed = bool(planned.statements)
    if is_changed:
        logger.info("capture_changed", mode=mode, before=planned.before.mode)
    if arguments.json:
        print_json({"mode": mode, "before": planned.before.mode, "changed": is_changed})
    else:
        stdout.say(_result(mode, is_changed=is_changed))
    return SUCCESS


def _print_sql(sql: str, *, as_json: bool) -> None:
    if as_json:
        print_json({"sql": sql})
    else:
        stdout.out(sql or "-- It is so already.\n", end="")


def _report(attempts: int) -> None:
    stderr.say(f"`collections` is in use; nothing was changed. Attempt {attempts + 1} follows.")


def _result(mode: str | None, *, is_changed: bool) -> str:
    if mode is None:
        return "Removed: nothing is captured any more." if is_changed else "It is not installed."
    return f"{'Installed' if is_changed else 'It is so already'}. {mode}: {MODES[mode]}."
