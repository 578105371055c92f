"""The command's actions that show letters: `list` and `show`."""

import argparse
import asyncio
from dataclasses import asdict

from sqlalchemy.ext.asyncio import AsyncEngine

from shared import dead_letters
from shared.dead_letters import Selection
from shared.letter_groups import find_groups
from shared.postgres.database import create_engine
from shared.process.orderly import SUCCESS
from shared.settings import CommandSettings
from worker.command_line.console import print_json, stdout
from worker.command_line.run import CommandError
from worker.dead_letters import terminal
from worker.dead_letters.payload import read_payload, read_present_state

STATEMENT_TIMEOUT_SECONDS = 30


async def execute(
    arguments: argparse.Namespace,
    settings: CommandSettings,
    interrupted: asyncio.Event,  # noqa: ARG001 - as every command takes it
) -> int:
    """List letters or show one, and return the exit status."""
    engine = open_engine(settings)
    try:
        if arguments.action == "list":
            return await show_list(engine, arguments)
        return await show_one(engine, arguments)
    finally:
        await engine.dispose()


def open_engine(settings: CommandSettings) -> AsyncEngine:
    """Make the engine of the command, which the caller disposes of."""
    return create_engine(
        settings,
        application_name="collection-sync dead_letters",
        pool_size=2,
        statement_timeout_seconds=STATEMENT_TIMEOUT_SECONDS,
    )


def selection_of(arguments: argparse.Namespace) -> Selection:
    """Return which letters the filters choose, and --state where there is one."""
    state = getattr(arguments, "state", "dead")
    return Selection(
        state=None if state == "all" else state,
        ids=getattr(arguments, "ids", None) or None,
        collection_id=arguments.collection,
        project_id=arguments.project,
        sqlstate=arguments.sqlstate,
        source=arguments.source,
        since=arguments.since,
        until=arguments.until,
        like=arguments.like,
    )


async def show_list(engine: AsyncEngine, arguments: argparse.Namespace) -> int:
    """Show the first of the chosen letters, or of their groups, and how many letters there are."""
    selection = selection_of(arguments)
    if arguments.groups:
        return await show_groups(engine, arguments, selection)
    async with engine.connect() as connection:
        listed = await dead_letters.find(connection, selection, most=arguments.limit)
        counts = await dead_letters.count(connection, selection)
    total = sum(counts.values())
    if arguments.json:
        shown = [terminal.as_json(letter) for letter in listed]
        print_json({"total": total, "counts": counts, "dead_letters": shown})
        return SUCCESS
    for line in terminal.table(listed) if listed else []:
        stdout.print(line, soft_wrap=True)
    more = f", the first {len(listed)} shown; --limit shows more" if total > len(listed) else ""
    stdout.say(f"{terminal.counted(total, what_of(arguments))}{more}.")
    return SUCCESS


async def show_groups(engine: AsyncEngine, arguments: argparse.Namespace, selection: Selection) -> int:
    """Show the largest groups of the chosen letters, each with the command that replays it."""
    async with engine.connect() as connection:
        groups = await find_groups(connection, selection, most=arguments.limit)
        counts = await dead_letters.count(connection, selection)
    total = sum(counts.values())
    if arguments.json:
        print_json({"total": total, "counts": counts, "groups": [asdict(group) for group in groups]})
        return SUCCESS
    for group in groups:
        stdout.say(*terminal.group_lines(group))
    more = ", the largest shown; --limit shows more" if len(groups) == arguments.limit else ""
    shown = terminal.counted(len(groups), "group")
    stdout.say(f"{terminal.counted(total, what_of(arguments))} in {shown}{more}.")
    return SUCCESS


def what_of(arguments: argparse.Namespace) -> str:
    """Return what --state calls the letters that are listed."""
    return "letter" if arguments.state == "all" else f"{arguments.state} letter"


async def show_one(engine: AsyncEngine, arguments: argparse.Namespace) -> int:
    """Show everything about one letter."""
    async with engine.connect() as connection:
        found = await dead_letters.find(connection, Selection(state=None, ids=[arguments.id]))
        if not found:
            raise CommandError(terminal.no_such_letter([arguments.id]))
        said = await dead_letters.said_of(connection, arguments.id)
        payload = await read_payload(connection, arguments.id)
        present = await read_present_state(connection, found[0].collection_id)
    if arguments.json:
        whole = {**terminal.as_json(found[0]), **asdict(said)}
        print_json({**whole, "payload": payload, "present_state": present})
    else:
        stdout.say(*terminal.details(found[0], said, payload, present))
    return SUCCESS
