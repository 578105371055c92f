"""`advance` and `back`: look, ask, turn the row in one transaction, and show what came of it."""

import argparse
import asyncio
import contextlib
import random
import time
from collections.abc import AsyncIterator
from dataclasses import asdict

import structlog
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from shared.phase import turn
from shared.phase.gates import Limits
from shared.phase.limits import limits_of
from shared.phase.phases import Phase
from shared.phase.turn import Turn, TurnRefusedError
from shared.postgres.database import create_engine
from shared.postgres.faults import LOCK_NOT_AVAILABLE, sqlstate
from shared.process.orderly import FAILURE, SUCCESS
from shared.settings import TurnSettings
from worker.command_line.console import print_json, stderr, stdout
from worker.command_line.question import agreed, can_ask
from worker.command_line.run import CommandError
from worker.phase.lines import READ_FROM, lost, numbered
from worker.phase.show import Shown, look

logger = structlog.get_logger(__name__)

PATIENCE_SECONDS = 30.0
REST_SECONDS = (0.1, 0.5)
STATEMENT_TIMEOUT_SECONDS = 10


async def execute(options: argparse.Namespace, settings: TurnSettings, interrupted: asyncio.Event) -> int:
    """Turn the phase by one, print what came of it, return the exit status: failure where it was refused."""
    limits = limits_of(settings)
    async with engine_of(settings) as engine:
        before = await look(engine, limits)
        await confirm(options, before, interrupted)
        try:
            turned = await turn_by_one(engine, options, limits, before.cutover.epoch, interrupted)
        except TurnRefusedError as refused:
            _show_refusal(options, await look(engine, limits), refused)
            return FAILURE
        logger.info(
            "phase_turned",
            from_phase=turned.from_phase,
            to_phase=turned.to_phase,
            kind=turned.kind,
            epoch=turned.epoch,
            actor=turned.actor,
            reason=turned.reason,
            unmet=[gate.name for gate in turned.gates if not gate.is_met],
        )
        _show_turn(options, await look(engine, limits), turned)
    return SUCCESS


@contextlib.asynccontextmanager
async def engine_of(settings: TurnSettings) -> AsyncIterator[AsyncEngine]:
    """Lend an engine with one connection, to a server that takes writes."""
    engine = create_engine(
        settings,
        application_name="collection-sync phase",
        pool_size=1,
        statement_timeout_seconds=STATEMENT_TIMEOUT_SECONDS,
        checks_sequences=False,
    )
    try:
        yield engine
    finally:
        await engine.dispose()


async def confirm(options: argparse.Namespace, before: Shown, interrupted: asyncio.Event) -> None:
    """Ask a person at a terminal whether to move the reads, unless --yes was given.

    Raises:
        CommandError: the answer was no.

    """
    phase = before.cutover.phase
    to_phase = phase.following if options.action == "advance" else phase.previous
    if Phase.READS_MOVED not in {phase, to_phase} or to_phase is None or options.yes or not can_ask():
        return
    if options.action == "back":
        stderr.say(lost(before.cutover.losses, before.facts.server.now))
    if not await agreed(
        f"{numbered(to_phase)}. {READ_FROM[to_phase is Phase.READS_MOVED]} Turn?", interrupted
    ):
        msg = "Nothing was turned."
        raise CommandError(msg)


async def turn_by_one(
    engine: AsyncEngine,
    options: argparse.Namespace,
    limits: Limits,
    epoch: int,
    interrupted: asyncio.Event,
) -> Turn:
    """Turn the phase of this epoch, and try again while another session holds its row.

    Raises:
        TurnRefusedError: it stays as it is, and why.
        CommandError: the row was not to be had, or the interrupt came first; nothing was turned.

    """
    until, attempts = time.monotonic() + PATIENCE_SECONDS, 0
    while not interrupted.is_set():
        try:
            async with engine.begin() as connection:
                return await _turn(connection, options, limits, epoch)
        except DBAPIError as error:
            if sqlstate(error) != LOCK_NOT_AVAILABLE:
                raise
        attempts += 1
        if time.monotonic() >= until:
            msg = f"Another session held the phase's row at each of {attempts} attempts. Nothing was turned."
            raise CommandError(msg)
        stderr.say(
            f"Another session holds the phase's row; nothing was turned. Attempt {attempts + 1} follows."
        )
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(interrupted.wait(), random.uniform(*REST_SECONDS))  # noqa: S311 - no secret
    msg = "Nothing was turned."
    raise CommandError(msg)


async def _turn(connection: AsyncConnection, options: argparse.Namespace, limits: Limits, epoch: int) -> Turn:
    if options.action == "back":
        return await turn.back(connection, actor=options.actor, reason=options.reason, epoch=epoch)
    return await turn.advance(
        connection,
        actor=options.actor,
        limits=limits,
        reason=options.reason,
        forced=options.force,
        falls_back=not options.no_fall_back,
        epoch=epoch,
    )


def _show_turn(options: argparse.Namespace, after: Shown, turned: Turn) -> None:
    if options.json:
        print_json(after.as_json() | {"turned": asdict(turned)})
        return
    how = "Turned back to" if turned.kind == "back" else "Turned on to"
    unmet = [gate for gate in turned.gates if not gate.is_met]
    stdout.say(f"{how} {numbered(turned.to_phase)}. {READ_FROM[turned.to_phase is Phase.READS_MOVED]}")
    if unmet:
        stdout.say(f"Forced past: {'; '.join(gate.title for gate in unmet)}.")
    if turned.from_phase is Phase.READS_MOVED:
        stdout.say(lost(turned.losses, after.facts.server.now))
    _say_next(after.next_steps)


def _show_refusal(options: argparse.Namespace, after: Shown, refused: TurnRefusedError) -> None:
    if options.json:
        print_json(after.as_json() | {"turned": None, "refused": str(refused)})
        return
    stderr.say(str(refused))
    _say_next(after.next_steps)


def _say_next(steps: list[str]) -> None:
    if steps:
        stdout.say("", "Next:", *(f"  {step}" for step in steps))
