"""What the command does: make every check and print what came out."""

import argparse
import asyncio
from collections import Counter
from collections.abc import Iterator, Sequence

from shared.process.orderly import FAILURE, SUCCESS
from shared.settings import CommandSettings
from worker.command_line.console import print_json, stdout
from worker.preflight.check import Check, Severity
from worker.preflight.examination import examine

NAME_WIDTH = 18


async def execute(
    arguments: argparse.Namespace, settings: CommandSettings, _interrupted: asyncio.Event
) -> int:
    """Check, print the result and return the exit status: failure where something stops."""
    checks = await examine(settings)
    worst = max(check.state for check in checks)
    if arguments.json:
        print_json({"verdict": worst.word, "checks": [check.as_json() for check in checks]})
    else:
        for line in lines(checks):
            show(line)
    return FAILURE if worst is Severity.STOP else SUCCESS


def lines(checks: Sequence[Check]) -> Iterator[str]:
    for check in checks:
        yield f"{check.state.word:<5} {check.name:<{NAME_WIDTH}} {check.sentence}"
        for fix in (check.fix or "").splitlines():
            yield f"{'':<5} {'':<{NAME_WIDTH}} > {fix}"
    count = Counter(check.state for check in checks)
    yield ""
    yield f"{count[Severity.STOP]} stop, {count[Severity.WARN]} warn, {count[Severity.OK]} ok."


def show(line: str) -> None:
    """Print a line; names in a database may hold anything."""
    stdout.say(line)
