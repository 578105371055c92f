"""The phase of the cutover as administrators see and turn it over HTTP."""

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from http import HTTPStatus
from types import MappingProxyType

from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncConnection

from api.admin.acts import acting
from api.admin.phase_models import (
    Advance,
    Comparisons,
    CountedLosses,
    CutoverState,
    GoBack,
    GoingBackLosses,
    PhaseGate,
    PhaseTurn,
    ShadowFinding,
    TurnedPhase,
)
from api.admin.steps import steps_of
from api.context import CollectionSync
from api.gate.errors import RETRY_AFTER_SECONDS, UNAVAILABLE_DETAIL, RefusalError
from shared.phase import turn
from shared.phase.gates import NOT_KNOWN, Gate, Limits, gates_of
from shared.phase.limits import limits_of
from shared.phase.phases import TITLES, Phase
from shared.phase.steps import next_steps
from shared.phase.turn import Turn, TurnRefusedError
from shared.postgres.faults import LOCK_NOT_AVAILABLE, sqlstate
from shared.revision import REVISION
from shared.status.session import looking
from shared.status.turns import PastTurn, turns
from shared.verdict.facts import Cutover, Facts, Losses, Shadow
from shared.verdict.words import count

NO_ROW = "the row of migration_phase is gone"
NO_SCHEMA = "the migration did not run"


class PhaseConflictError(RefusalError):
    """The phase stays as it is."""

    status = HTTPStatus.CONFLICT

    def __init__(self, refused: TurnRefusedError) -> None:
        self.detail = str(refused)
        self.more = {"gates": [gate.model_dump(mode="json") for gate in _gates(refused.gates)]}


class PhaseHeldError(RefusalError):
    """Another session turns the phase, or has locked a table of it, for longer than the lock timeout."""

    status = HTTPStatus.SERVICE_UNAVAILABLE
    detail = "Another session holds a lock that the turn needs. Nothing was turned. Try again."
    headers = MappingProxyType({"Retry-After": str(RETRY_AFTER_SECONDS)})


class UnseenPhaseError(RefusalError):
    """PostgreSQL did not answer a look."""

    status = HTTPStatus.SERVICE_UNAVAILABLE
    detail = UNAVAILABLE_DETAIL
    headers = MappingProxyType({"Retry-After": str(RETRY_AFTER_SECONDS)})


async def read_phase(sync: CollectionSync) -> CutoverState:
    """Return the phase, its gates and its history, as of one look that all who ask at once share.

    Raises:
        UnseenPhaseError: PostgreSQL does not answer.

    """
    said, facts = await sync.looks.look()
    if facts is None:
        raise UnseenPhaseError
    if facts.cutover is None:
        return _unknown(facts, said.next_steps)
    # What a turn wrote stays as it is, so those up to this epoch are those of the look.
    async with looking(sync.looks.engine) as connection:
        past = await turns(connection, facts.cutover.epoch)
    return _state(facts, facts.cutover, limits_of(sync.settings), past)


async def advance(sync: CollectionSync, actor: str, asked: Advance) -> TurnedPhase:
    """Turn the phase on by one.

    Raises:
        PhaseConflictError: gates are not met, it is the last phase, or it was turned since it was seen.
        PhaseHeldError: another session turns it.

    """
    limits = limits_of(sync.settings)
    return await _turn(
        sync,
        actor,
        "advance",
        lambda connection: turn.advance(
            connection,
            actor=actor,
            limits=limits,
            reason=asked.reason,
            forced=asked.force,
            falls_back=asked.falls_back,
            epoch=asked.epoch,
        ),
    )


async def back(sync: CollectionSync, actor: str, asked: GoBack) -> TurnedPhase:
    """Turn the phase back by one.

    Raises:
        PhaseConflictError: it is the first phase, or it was turned since it was seen.
        PhaseHeldError: another session turns it.

    """
    return await _turn(
        sync,
        actor,
        "back",
        lambda connection: turn.back(connection, actor=actor, reason=asked.reason, epoch=asked.epoch),
    )


async def _turn(
    sync: CollectionSync, actor: str, kind: str, carry_out: Callable[[AsyncConnection], Awaitable[Turn]]
) -> TurnedPhase:
    try:
        async with acting(sync, actor, f"phase.{kind}") as act:
            turned = await carry_out(act.connection)
            act.subject = f"phase {turned.to_phase}"
            act.outcome = outcome_of(turned)
    except TurnRefusedError as refused:
        raise PhaseConflictError(refused) from refused
    except DBAPIError as error:
        if sqlstate(error) != LOCK_NOT_AVAILABLE:
            raise
        raise PhaseHeldError from error
    return TurnedPhase(
        phase=turned.to_phase,
        from_phase=turned.from_phase,
        epoch=turned.epoch,
        forced=turned.forced,
        gates=_gates(turned.gates),
        losses=None if turned.losses is None else GoingBackLosses.model_validate(turned.losses),
        outcome=act.outcome,
    )


def outcome_of(turned: Turn) -> str:
    """Say what was done in sentences: the turn, what it was forced past, and whence lists are read now."""
    verb = "Advanced" if turned.kind == "advance" else "Went back"
    said = [f"{verb} from {TITLES[turned.from_phase]} to {TITLES[turned.to_phase]}."]
    if turned.forced:
        unmet = sum(not gate.is_met for gate in turned.gates)
        said.append(f"Forced: {count(unmet, 'gate was', 'gates were')} not met.")
    if turned.to_phase is Phase.READS_MOVED:
        said.append("Lists are read from project_collections.")
    if turned.from_phase is Phase.READS_MOVED:
        said.append("Lists are read from collections.")
    return " ".join(said)


def _state(facts: Facts, cutover: Cutover, limits: Limits, past: Sequence[PastTurn]) -> CutoverState:
    phase, now = cutover.phase, facts.server.now
    gates = gates_of(phase, facts, limits)
    typed = next_steps(cutover, gates)
    return CutoverState(
        phase=phase,
        title=TITLES[phase],
        following=phase.following,
        previous=phase.previous,
        epoch=cutover.epoch,
        since=datetime.fromtimestamp(cutover.since, UTC),
        actor=cutover.actor,
        falls_back=cutover.falls_back,
        gates=_gates(gates),
        next_steps=typed,
        steps=steps_of(typed),
        shadow=_comparisons(cutover.shadow, now),
        losses=_counted(cutover.losses, now),
        turns=[PhaseTurn.model_validate(one) for one in past],
        unknown=dict(facts.unknown),
    )


def _unknown(facts: Facts, typed: Sequence[str]) -> CutoverState:
    is_migrated = (facts.server.revision or "") >= REVISION
    why = facts.unknown.get("schema") or (NO_ROW if is_migrated else NO_SCHEMA)
    return CutoverState(
        title=NOT_KNOWN.capitalize(),
        next_steps=typed,
        steps=steps_of(typed),
        unknown={"cutover": why, **facts.unknown},
    )


def _comparisons(seen: Shadow, now: float) -> Comparisons:
    return Comparisons(
        compared=seen.compared,
        matched=seen.matched,
        mismatched=seen.mismatched,
        pending=seen.pending,
        lettered=seen.lettered,
        dropped=seen.dropped,
        failed=seen.failed,
        legacy_ms=1000 * seen.legacy_seconds / seen.compared if seen.compared else None,
        target_ms=1000 * seen.target_seconds / seen.compared if seen.compared else None,
        age_seconds=None if seen.last_at is None else now - seen.last_at,
        findings=[ShadowFinding.model_validate(one) for one in seen.findings],
    )


def _counted(losses: Losses | None, now: float) -> CountedLosses | None:
    if losses is None:
        return None
    return CountedLosses.model_validate(asdict(losses) | {"age_seconds": now - losses.counted_at})


def _gates(gates: Sequence[Gate]) -> list[PhaseGate]:
    return [PhaseGate.model_validate(gate) for gate in gates]
