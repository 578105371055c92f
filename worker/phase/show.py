"""`status`: the phase, the gates to the next one, what comparisons found, and the cost of going back."""

import argparse
import asyncio
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from shared.migration_state import read_revision
from shared.phase.gates import Gate, Limits, gates_of
from shared.phase.limits import limits_of
from shared.phase.phases import TITLES
from shared.phase.steps import is_open, next_steps
from shared.postgres.advice import LACKS_TABLES
from shared.process.orderly import FAILURE, SUCCESS
from shared.revision import REVISION
from shared.settings import TurnSettings
from shared.status import cutover
from shared.status.look import read_facts
from shared.status.session import engine_of, looking
from shared.status.turns import PastTurn, turns
from shared.verdict.facts import Cutover, Facts
from worker.command_line.console import print_json, stdout
from worker.command_line.run import CommandError
from worker.phase.lines import lines

NO_ROW = (
    "The row of migration_phase is gone, so reads come from collections. Put it back: see docs/phases.md."
)


@dataclass(frozen=True, slots=True)
class Shown:
    """What one look saw. gates: those to the next phase."""

    cutover: Cutover
    gates: Sequence[Gate]
    facts: Facts
    turns: Sequence[PastTurn]

    @property
    def is_open(self) -> bool:
        return is_open(self.cutover, self.gates)

    @property
    def next_steps(self) -> list[str]:
        return next_steps(self.cutover, self.gates)

    def as_json(self) -> dict[str, Any]:
        """Return the line: moments are seconds since 1970 by the database's clock, durations seconds."""
        seen = asdict(self.cutover)
        return {
            "phase": seen.pop("phase"),
            "title": TITLES[self.cutover.phase],
            "number": self.cutover.phase.number,
            "following": self.cutover.phase.following,
            "is_open": self.is_open,
            **seen,
            "gates": [asdict(gate) for gate in self.gates],
            "next_steps": self.next_steps,
            "turns": [asdict(turn) for turn in self.turns],
            "unknown": dict(self.facts.unknown),
        }


async def execute(options: argparse.Namespace, settings: TurnSettings, interrupted: asyncio.Event) -> int:
    """Print it and return the exit status: success where the next phase is open, or the last one is well."""
    del interrupted  # it takes a moment
    async with engine_of(settings) as engine:
        shown = await look(engine, limits_of(settings))
    if options.json:
        print_json(shown.as_json())
    else:
        for line in lines(shown.cutover, shown.gates, shown.next_steps, shown.turns, shown.facts.server.now):
            stdout.print(line, soft_wrap=True)
    return SUCCESS if shown.is_open else FAILURE


async def look(engine: AsyncEngine, limits: Limits) -> Shown:
    """Read it all on one snapshot.

    Raises:
        CommandError: the schema is of an older release, or the phase's row is gone.
        sqlalchemy.exc.DBAPIError: this role may not read the phase, or PostgreSQL does not answer.

    """
    async with looking(engine) as connection:
        await _require_row(connection)
        facts = await read_facts(connection)
        if facts.cutover is None:
            raise CommandError(f"The phase is not known: {'; '.join(facts.unknown.values())}. Look again.")
        found = await turns(connection, facts.cutover.epoch)
    return Shown(facts.cutover, gates_of(facts.cutover.phase, facts, limits), facts, found)


async def _require_row(connection: AsyncConnection) -> None:
    """Let PostgreSQL's own refusal through where this role may not look."""
    revision = await read_revision(connection)
    if revision is None or revision < REVISION:
        raise CommandError(LACKS_TABLES)
    if (await connection.execute(cutover.PHASE)).one_or_none() is None:
        raise CommandError(NO_ROW)
