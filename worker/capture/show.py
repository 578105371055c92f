"""`status`: whether the capture is installed, who wrote past the outbox, and what it cannot see."""

import argparse
import asyncio
from collections.abc import Iterator
from dataclasses import asdict, dataclass

from sqlalchemy.ext.asyncio import AsyncConnection

from shared.capture import Capture, Writer, read_capture, read_writers
from shared.process.orderly import FAILURE, SUCCESS
from shared.settings import CommandSettings
from shared.verdict.words import count
from worker.capture.change import engine_of, place_of
from worker.capture.definition import digest
from worker.capture.options import MODES
from worker.capture.unseen import NEVER_SEEN, unseen
from worker.command_line.console import print_json, stdout

INSTALL = "python -m worker.capture install --mode"


@dataclass(frozen=True, slots=True)
class Shown:
    """What `status` shows; a fault keeps an installed capture from seeing what this release means it to."""

    capture: Capture
    faults: list[str]
    writers: list[Writer]
    not_seen: list[str]

    def as_json(self) -> dict[str, object]:
        """Return the line that a machine reads; writers are of the last 24 hours."""
        return {
            "mode": self.capture.mode,
            "installed_by": self.capture.installed_by,
            "installed_at": self.capture.installed_at,
            "faults": self.faults,
            "writers": [asdict(writer) for writer in self.writers],
            "not_seen": self.not_seen,
        }


async def execute(
    arguments: argparse.Namespace, settings: CommandSettings, interrupted: asyncio.Event
) -> int:
    """Print it and return the exit status: failure where what is installed has a fault."""
    del interrupted  # there is nothing to interrupt
    async with engine_of(settings) as engine, engine.begin() as connection:
        shown = await look(connection)
    if arguments.json:
        print_json(shown.as_json())
    else:
        stdout.say(*lines(shown))
    return FAILURE if shown.faults else SUCCESS


async def look(connection: AsyncConnection) -> Shown:
    place = await place_of(connection)
    capture = await read_capture(connection)
    return Shown(
        capture,
        list(faults_of(capture, digest(place))),
        await read_writers(connection),
        [*await unseen(connection), *NEVER_SEEN],
    )


def faults_of(capture: Capture, current: str) -> Iterator[str]:
    """Name what is wrong with what is installed, with what cures it; `current` is this release's digest."""
    if capture.mode is None and capture.left_over:
        yield "Triggers are there without a mode, and do nothing: python -m worker.capture remove"
    if capture.missing:
        names = ", ".join(capture.missing)
        yield f"Gone or disabled, so not everything is seen: {names}: {INSTALL} {capture.mode}"
    if capture.definition not in {None, current}:
        yield f"It is another release's, which may project something else: {INSTALL} {capture.mode}"


def lines(shown: Shown) -> Iterator[str]:
    mode = shown.capture.mode
    if mode is None:
        yield "Not installed: writers that append no event are found by audits, afterwards."
    else:
        since = f"{shown.capture.installed_at:%Y-%m-%d %H:%M} by {shown.capture.installed_by}"
        yield f"{mode}: {MODES[mode]}. Since {since}."
    yield from shown.faults
    yield ""
    yield "Wrote past the outbox in the last 24 hours (UTC):"
    yield from map(said_of, shown.writers)
    if not shown.writers:
        yield "  nobody that was seen"
    yield ""
    yield "Not seen:"
    yield from (f"  {sentence}" for sentence in shown.not_seen)


def said_of(writer: Writer) -> str:
    application = writer.application or "no application name"
    return (
        f"  {writer.role}, {application}: {writer.operation} {count(writer.writes, 'time', 'times')},"
        f" last {writer.last_at:%Y-%m-%d %H:%M:%S}"
    )
