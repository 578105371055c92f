"""What the command does: look once, or again each second, and show where the migration stands."""

import argparse
import asyncio
import contextlib
from collections.abc import Iterator

from rich.live import Live
from rich.text import Text
from sqlalchemy.ext.asyncio import AsyncEngine

from shared.process.orderly import FAILURE, SUCCESS
from shared.process.printable import printable
from shared.settings import CommandSettings
from shared.status import figures
from shared.status.looked import AnswerAndFacts, looked
from shared.status.machine import as_json
from shared.status.session import engine_of
from shared.verdict.answer import Answer
from shared.verdict.facts import Facts
from worker.command_line.console import print_json, stdout
from worker.command_line.verdict import say_verdict, tone

WATCH_SECONDS = 1.0


async def execute(options: argparse.Namespace, settings: CommandSettings, interrupted: asyncio.Event) -> int:
    """Look, print what was seen and return the exit status: success where all is well."""
    async with engine_of(settings) as engine:
        if options.watch:
            seen = await watched(engine, interrupted, quiet=options.json)
        else:
            seen = await looked(engine)
            if not options.json:
                stdout.print(text_of(seen), soft_wrap=True)
    if options.json:
        print_json(as_json(*seen))
    return SUCCESS if seen[0].is_well else FAILURE


async def watched(engine: AsyncEngine, interrupted: asyncio.Event, *, quiet: bool) -> AnswerAndFacts:
    """Look each second until interrupted: redraw at a terminal, else print a verdict where it is another."""
    seen = await looked(engine)
    with screen() if stdout.is_terminal and not quiet else contextlib.nullcontext() as live:
        said = None
        while not interrupted.is_set():
            if live is not None:
                live.update(text_of(seen), refresh=True)
            elif not quiet and seen[0].word != said:
                said = seen[0].word
                say_verdict(said, seen[0].sentence)
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(interrupted.wait(), WATCH_SECONDS)
            if not interrupted.is_set():
                seen = await looked(engine)
    return seen


def screen() -> Live:
    return Live(console=stdout, auto_refresh=False)


def text_of(seen: AnswerAndFacts) -> Text:
    return Text("\n").join(Text(printable(line), style) for line, style in _lines(*seen))


def _lines(said: Answer, facts: Facts | None) -> Iterator[tuple[str, str]]:
    yield said.sentence, f"bold {tone(said.word)}"
    if said.next_steps:
        yield "Next:", ""
    for step in said.next_steps:
        yield f"  {step}", ""
    if facts is not None:
        yield "", ""
        for line in figures.lines(facts):
            yield line, ""
