"""The command's actions that close letters: `replay` and `discard`."""

import argparse
import asyncio
from collections.abc import AsyncIterator, Sequence

import structlog
from sqlalchemy.ext.asyncio import AsyncEngine

from shared import dead_letters
from shared.dead_letters import AT_ONCE
from shared.process.orderly import FAILURE, SUCCESS
from shared.settings import CommandSettings
from worker.command_line.console import print_json, stderr, stdout
from worker.command_line.question import agreed, can_ask
from worker.command_line.ringing import doorbell_of
from worker.command_line.run import CommandError
from worker.dead_letters import terminal
from worker.dead_letters.replays import replay_all, wait_for_replays
from worker.dead_letters.show import open_engine, selection_of
from worker.settled import stall_sentence

logger = structlog.get_logger(__name__)


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
        stdout.say(f"Discarded {terminal.counted(len(discarded))}.")
        complain_of(not_dead)
    return FAILURE if not_dead or interrupted.is_set() else SUCCESS


async def replay(
    engine: AsyncEngine, arguments: argparse.Namespace, settings: CommandSettings, interrupted: asyncio.Event
) -> int:
    """Append the present state of the chosen letters' collections; with --wait, wait for the outcome."""
    await confirm(engine, arguments, "replay", interrupted)
    async with doorbell_of(settings, engine) as doorbell:
        replays = await replay_all(engine, pages(engine, arguments, interrupted), doorbell)
        if arguments.wait and replays.event_ids:
            await wait_for_replays(engine, replays, interrupted=interrupted, on_stall=say_stalled)
    if arguments.json:
        print_json(replays.as_json())
    else:
        stdout.say(replays.sentence())
        complain_of(replays.closed)
        if replays.homeless:
            stderr.say(
                f"Not replayed, because their collections do not exist: {listed(replays.homeless)}."
                " Nothing is missing in project_collections; discard them."
            )
    return SUCCESS if replays.is_complete and not interrupted.is_set() else FAILURE


async def pages(
    engine: AsyncEngine, arguments: argparse.Namespace, interrupted: asyncio.Event
) -> AsyncIterator[Sequence[int]]:
    """Yield the ids of the chosen letters, as many at a time as one transaction takes."""
    if arguments.ids:
        ids = sorted(set(arguments.ids))
        for start in range(0, len(ids), AT_ONCE):
            yield ids[start : start + AT_ONCE]
        return
    after_id = 0
    while not interrupted.is_set():
        async with engine.connect() as connection:
            page = await dead_letters.find(connection, selection_of(arguments), after_id=after_id)
        if not page:
            return
        yield [letter.id for letter in page]
        after_id = page[-1].id


async def confirm(
    engine: AsyncEngine, arguments: argparse.Namespace, verb: str, interrupted: asyncio.Event
) -> None:
    """Ask before --all, unless --yes was given or there is no letter; refuse where stdin is no terminal."""
    if not arguments.all or arguments.yes:
        return
    async with engine.connect() as connection:
        counts = await dead_letters.count(connection, selection_of(arguments))
    if not any(counts.values()):
        return
    number = terminal.counted(sum(counts.values()))
    if not can_ask():
        raise CommandError(f"This would {verb} {number}. Pass --yes to do it.")
    if not await agreed(f"{verb.capitalize()} {number}?", interrupted):
        msg = "Nothing was changed."
        raise CommandError(msg)


def complain_of(not_dead: Sequence[int]) -> None:
    """Print which letters were not dead, or do not exist."""
    if not_dead:
        stderr.say(f"Not dead, or not there: {listed(not_dead)}. See `list --state all`.")


def listed(ids: Sequence[int], most: int = 20) -> str:
    """Enumerate ids, of more than `most` the first ones."""
    more = f" and {len(ids) - most} more" if len(ids) > most else ""
    return ", ".join(map(str, ids[:most])) + more


def say_stalled(pending: int) -> None:
    """Print why nothing goes on."""
    stderr.say(stall_sentence(pending))
