"""What the command does: make every check and print what came out."""

import argparse
import asyncio
from collections import Counter
from collections.abc import Iterator, Sequence

from rich.text import Text

from shared.process.orderly import FAILURE, SUCCESS
from shared.process.printable import printable
from shared.settings import CommandSettings
from worker.command_line.console import LONGEST_LINE, print_json, stdout
from worker.command_line.verdict import tone
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
            stdout.print(line, soft_wrap=True)
    return FAILURE if worst is Severity.STOP else SUCCESS


def lines(checks: Sequence[Check]) -> Iterator[Text]:
    """Yield what to print; names in a database may hold anything."""
    for check in checks:
        word = Text(f"{check.state.word:<5}", tone(check.state.word))
        yield Text.assemble(
            word, " ", printable(f"{check.name:<{NAME_WIDTH}} {check.sentence}", LONGEST_LINE)
        )
        for fix in (check.fix or "").splitlines():
            yield Text(printable(f"{'':<5} {'':<{NAME_WIDTH}} > {fix}", LONGEST_LINE))
    count = Counter(check.state for check in checks)
    worst = max(check.state for check in checks)
    yield Text()
    yield Text(
        f"{count[Severity.STOP]} stop, {count[Severity.WARN]} warn, {count[Severity.OK]} ok.",
        f"bold {tone(worst.word)}",
    )
