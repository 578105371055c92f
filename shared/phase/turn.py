"""Turning the phase: lock its row, look at the gates, write the row and its history; one transaction."""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

from shared.phase.gates import Gate, Limits, gates_of
from shared.phase.phases import TITLES, Phase
from shared.status.look import read_facts
from shared.status.session import CAREFULLY
from shared.verdict.facts import Facts, Losses

LOCK_TIMEOUT = "2s"
# Nobody who reads waits for it: they see the row as it was.
HOLD = text("SELECT phase, epoch FROM migration_phase WHERE singleton FOR UPDATE")
TURN = text("""
    UPDATE migration_phase
    SET phase = :phase, epoch = epoch + 1, since = clock_timestamp(), actor = :actor,
        falls_back = coalesce(:falls_back, falls_back)
    WHERE singleton
    RETURNING epoch
""")
RECORD = text("""
    INSERT INTO phase_turns (epoch, from_phase, to_phase, kind, actor, reason, forced, gates, losses)
    VALUES (
        :epoch, :from_phase, :to_phase, :kind, :actor, :reason, :forced,
        CAST(:gates AS jsonb), CAST(:losses AS jsonb)
    )
""")
MOVED = (
    "Reads are moved: lists are answered from project_collections. Go back first: python -m worker.phase back"
)


class TurnRefusedError(Exception):
    """The phase stays as it is; the message says why. gates: all that were looked at, met or not."""

    def __init__(self, message: str, gates: Sequence[Gate] = ()) -> None:
        super().__init__(message)
        self.gates = gates


@dataclass(frozen=True, slots=True)
class Turn:
    """A turn, in a transaction that is still to commit. kind: advance, back or fall_back."""

    from_phase: Phase
    to_phase: Phase
    kind: str
    actor: str
    reason: str | None = None
    gates: Sequence[Gate] = ()
    forced: bool = False
    losses: Losses | None = None
    epoch: int = 0


async def hold(connection: AsyncConnection, epoch: int | None = None) -> Phase:
    """Lock the phase's row until the transaction ends, and return the phase.

    Args:
        connection: in a transaction.
        epoch: the one that the caller saw; None: it saw none.

    Raises:
        TurnRefusedError: there is no such row, or the phase was turned since the caller saw it.
        sqlalchemy.exc.DBAPIError: another session turns it, and has held the row for two seconds (55P03).

    """
    await connection.execute(text(f"SET LOCAL lock_timeout = '{LOCK_TIMEOUT}'"))
    row = (await connection.execute(HOLD)).one_or_none()
    if row is None:
        msg = "The row of migration_phase is gone. Put it back: see docs/phases.md."
        raise TurnRefusedError(msg)
    phase = Phase(row.phase)
    if epoch not in {None, row.epoch}:
        msg = f"The phase was turned since you looked: it is {TITLES[phase]} now. Look again."
        raise TurnRefusedError(msg)
    return phase


async def advance(  # noqa: PLR0913 - keywords
    connection: AsyncConnection,
    *,
    actor: str,
    limits: Limits,
    reason: str | None = None,
    forced: bool = False,
    falls_back: bool | None = None,
    epoch: int | None = None,
) -> Turn:
    """Turn the phase on by one, if its gates are met.

    Args:
        connection: in a transaction, which the caller commits.
        actor: 1 to 200 characters.
        limits: of the gates.
        reason: recorded with the turn; there must be one to force it.
        forced: turn it although gates are not met.
        falls_back: whether moved reads go back by themselves; None leaves that as it is.
        epoch: as `hold`.

    Raises:
        TurnRefusedError: a gate is not met, there is no phase behind this one, or no reason to force it; or
            as `hold`.
        sqlalchemy.exc.DBAPIError: as `hold`.

    """
    phase = await hold(connection, epoch)
    following = phase.following
    if following is None:
        msg = f"{TITLES[phase]} is the last phase that this system carries out."
        raise TurnRefusedError(msg)
    if forced and not reason:
        msg = "Forcing needs a reason, which is recorded: --force --reason TEXT."
        raise TurnRefusedError(msg)
    facts = await _look(connection)
    gates = gates_of(phase, facts, limits)
    unmet = [gate for gate in gates if not gate.is_met]
    if unmet and not forced:
        titles = "; ".join(f"{gate.title}: {gate.value} (must be: {gate.limit})" for gate in unmet)
        raise TurnRefusedError(f"Not turned to {TITLES[following]}. {titles}.", gates)
    turn = Turn(phase, following, "advance", actor, reason, gates, forced=bool(unmet), losses=_losses(facts))
    return await _carry_out(connection, turn, falls_back)


async def back(
    connection: AsyncConnection, *, actor: str, reason: str | None = None, epoch: int | None = None
) -> Turn:
    """Turn the phase back by one; there is no gate. epoch: as `hold`.

    Raises:
        TurnRefusedError: there is no phase before this one; or as `hold`.
        sqlalchemy.exc.DBAPIError: as `hold`.

    """
    phase = await hold(connection, epoch)
    previous = phase.previous
    if previous is None:
        msg = f"{TITLES[phase]} is the first phase."
        raise TurnRefusedError(msg)
    facts = await _look(connection)
    return await _carry_out(
        connection, Turn(phase, previous, "back", actor, reason, losses=_losses(facts)), falls_back=None
    )


async def back_to_outbox(connection: AsyncConnection, *, actor: str, reason: str) -> Turn | None:
    """Turn the phase back to Outbox, by one turn, since nothing is verified any more; None where it is there.

    Raises:
        TurnRefusedError: reads are moved; or as `hold`.
        sqlalchemy.exc.DBAPIError: as `hold`.

    """
    phase = await hold(connection)
    if phase is Phase.READS_MOVED:
        raise TurnRefusedError(MOVED)
    if phase.number <= Phase.OUTBOX.number:
        return None
    return await _carry_out(connection, Turn(phase, Phase.OUTBOX, "back", actor, reason), falls_back=None)


async def _look(connection: AsyncConnection) -> Facts:
    """Read the facts by indexes, now that the row is held: each statement sees what was committed by then."""
    await connection.execute(CAREFULLY)
    return await read_facts(connection)


def _losses(facts: Facts) -> Losses | None:
    return None if facts.cutover is None else facts.cutover.losses


async def _carry_out(connection: AsyncConnection, turn: Turn, falls_back: bool | None) -> Turn:  # noqa: FBT001
    turned = {"phase": turn.to_phase.value, "actor": turn.actor, "falls_back": falls_back}
    epoch: int = (await connection.execute(TURN, turned)).scalar_one()
    row = asdict(turn) | {
        "epoch": epoch,
        "gates": json.dumps([asdict(gate) for gate in turn.gates]),
        "losses": None if turn.losses is None else json.dumps(asdict(turn.losses)),
    }
    await connection.execute(RECORD, row)
    return replace(turn, epoch=epoch)
