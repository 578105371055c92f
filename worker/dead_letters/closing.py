"""The command's actions that close letters: `replay` and `discard`."""

import argparse
import asyncio
import math
from collections.abc import AsyncIterator, Sequence
from dataclasses import replace

import structlog
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from shared import dead_letters
from shared.dead_letters import AT_ONCE, DeadLetter, Selection
from shared.phase.now import phase_now
from shared.phase.phases import Phase
from shared.process.orderly import FAILURE, SUCCESS
from shared.settings import CommandSettings
from worker.command_line.console import print_json, stderr, stdout
from worker.command_line.question import agreed, can_ask
from worker.command_line.ringing import doorbell_of
from worker.command_line.run import CommandError
from worker.dead_letters import terminal
from worker.dead_letters.options import PATIENCE_SECONDS
from worker.dead_letters.replays import MOST_SAID, replay_all, wait_for_replays
from worker.dead_letters.show import open_engine, selection_of
from worker.settled import stall_sentence

logger = structlog.get_logger(__name__)

MOVED = (
    "Reads are moved. While a letter is open, lists show its collection from collections. Once it is"
    " discarded they show the row of project_collections, however old that is: to bring it up to date, replay"
    " instead."
)
NOW = text("SELECT clock_timestamp()")


async def execute(
    arguments: argparse.Namespace, settings: CommandSettings, interrupted: asyncio.Event
) -> int:
    """Replay or discard, and return the exit status."""
    engine = open_engine(settings)
    try:
        if arguments.action == "discard":
            return await discard(engine, arguments, interrupted)
        return await replay(engine, arguments, settings, interrupted)
    finally:
        await engine.dispose()


async def discard(engine: AsyncEngine, arguments: argparse.Namespace, interrupted: asyncio.Event) -> int:
    """Close the chosen letters for good."""
    async with engine.connect() as connection:
        if await phase_now(connection) is Phase.READS_MOVED:
            stderr.say(MOVED)
    await confirm(engine, arguments, "discard", interrupted)
    discarded: list[int] = []
    async for ids in pages(engine, arguments, interrupted):
        async with engine.begin() as connection:
            done = await dead_letters.discard(connection, ids)
        logger.info("dead_letters_discarded", letters=len(done), event_ids=done[: dead_letters.MOST_NAMED])
        discarded += done
    not_dead = sorted(set(arguments.ids) - set(discarded))
    if arguments.json:
        print_json({"discarded": len(discarded), "not_dead": not_dead})
    else:
        if discarded or not not_dead:
            stdout.say(f"Discarded {terminal.counted(len(discarded))}.")
        await complain_of(engine, not_dead)
    return FAILURE if not_dead or interrupted.is_set() else SUCCESS


async def replay(
    engine: AsyncEngine, arguments: argparse.Namespace, settings: CommandSettings, interrupted: asyncio.Event
) -> int:
    """Append the present state of the chosen letters' collections, and wait for the outcome."""
    await confirm(engine, arguments, "replay", interrupted)
    async with doorbell_of(settings, engine) as doorbell:
        replays = await replay_all(engine, pages(engine, arguments, interrupted), doorbell)
        if replays.events and not arguments.no_wait:
            await wait_for_replays(
                engine,
                replays,
                interrupted=interrupted,
                on_stall=say_stalled if arguments.wait else None,
                longest_stall_seconds=math.inf if arguments.wait else PATIENCE_SECONDS,
            )
    if arguments.json:
        print_json(replays.as_json())
    else:
        if replays.events or not (replays.closed or replays.homeless):
            stdout.say(*replays.sentences())
        await complain_of(engine, replays.closed)
        if replays.homeless:
            stderr.say(
                f"Not replayed, because their collections do not exist: {terminal.listed(replays.homeless)}."
                " Nothing is missing in project_collections; discard them."
            )
    return SUCCESS if replays.is_complete and not interrupted.is_set() else FAILURE


async def pages(
    engine: AsyncEngine, arguments: argparse.Namespace, interrupted: asyncio.Event
) -> AsyncIterator[Sequence[int]]:
    """Yield the ids of the chosen letters, as many at a time as one transaction takes.

    What dies after the first page was asked for, replays among it, is not chosen.
    """
    if arguments.ids:
        ids = sorted(set(arguments.ids))
        for start in range(0, len(ids), AT_ONCE):
            yield ids[start : start + AT_ONCE]
        return
    after_id, selection = 0, selection_of(arguments)
    async with engine.connect() as connection:
        now = (await connection.execute(NOW)).scalar_one()
    selection = replace(selection, until=min(now, selection.until or now))
    while not interrupted.is_set():
        async with engine.connect() as connection:
            page = await dead_letters.find(connection, selection, after_id=after_id)
        if not page:
            return
        yield [letter.id for letter in page]
        after_id = page[-1].id


async def confirm(
    engine: AsyncEngine, arguments: argparse.Namespace, verb: str, interrupted: asyncio.Event
) -> None:
    """Ask before --all and --like, unless --yes was given or there is no letter.

    Raises:
        CommandError: the answer was no, or stdin is no terminal; or --like names no letter.

    """
    if arguments.ids:
        return
    async with engine.connect() as connection:
        if arguments.like is not None and not await find_any(connection, [arguments.like]):
            raise CommandError(terminal.no_such_letter([arguments.like]))
        if arguments.yes:
            return
        counts = await dead_letters.count(connection, selection_of(arguments))
    if not any(counts.values()):
        return
    number = terminal.counted(sum(counts.values()))
    if not can_ask():
        raise CommandError(f"This would {verb} {number}. Pass --yes to do it.")
    if not await agreed(f"{verb.capitalize()} {number}?", interrupted):
        msg = "Nothing was changed."
        raise CommandError(msg)


async def complain_of(engine: AsyncEngine, not_dead: Sequence[int]) -> None:
    """Print which of these letters do not exist, and which are closed, and how."""
    if not not_dead:
        return
    async with engine.connect() as connection:
        closed = [
            letter
            for start in range(0, len(not_dead), AT_ONCE)
            for letter in await find_any(connection, not_dead[start : start + AT_ONCE])
        ]
    if unknown := sorted(set(not_dead) - {letter.id for letter in closed}):
        stderr.say(terminal.no_such_letter(unknown))
    for letter in closed[:MOST_SAID]:
        stderr.say(f"Dead letter {letter.id} is closed: {terminal.state(letter)}.")
    if len(closed) > MOST_SAID:
        stderr.say(f"{len(closed) - MOST_SAID:,} more are closed: see `list --state all`.")


async def find_any(connection: AsyncConnection, ids: Sequence[int]) -> list[DeadLetter]:
    """Return those of these letters that exist, whatever their state."""
    return await dead_letters.find(connection, Selection(state=None, ids=ids))


def say_stalled(pending: int) -> None:
    """Print why nothing goes on."""
    stderr.say(stall_sentence(pending))
