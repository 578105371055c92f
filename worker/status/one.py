"""One collection: read it whole, find why it is as it is, and show every part."""

import argparse
import asyncio
from dataclasses import asdict

from shared.process.orderly import FAILURE, SUCCESS
from shared.process.printable import printable
from shared.settings import CommandSettings
from shared.status.collection import read
from shared.status.collection_lines import lines
from shared.status.session import engine_of
from shared.status.why import why
from worker.command_line.console import print_json, stdout
from worker.command_line.verdict import say_verdict

LONGEST_LINE = 4_000  # characters; with --json everything is there


async def execute(
    options: argparse.Namespace,
    settings: CommandSettings,
    interrupted: asyncio.Event,  # noqa: ARG001 - it takes a second
) -> int:
    """Look once, print it and return the exit status: success where both tables agree on the collection."""
    async with engine_of(settings) as engine:
        found = await read(engine, options.collection_id)
    said = why(found)
    if options.json:
        answer = {"verdict": said.word, "sentence": said.sentence, "next_steps": list(said.next_steps)}
        print_json(answer | {"may_go_on": said.is_well} | asdict(found))
        return SUCCESS if said.is_well else FAILURE
    say_verdict(said.word, said.sentence)
    for line in (*(f"  {step}" for step in said.next_steps), "", *lines(found)):
        stdout.say(printable(line, LONGEST_LINE))
    return SUCCESS if said.is_well else FAILURE
