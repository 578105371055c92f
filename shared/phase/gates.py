"""The gates: what must be true before the phase is turned, each with what was seen, its age and its limit.

They are decided from facts alone. What is not known meets no gate, and neither does what is older than its
limit: a verification that is too old is no verification.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from shared.phase.phases import Phase
from shared.revision import REVISION
from shared.verdict import commands
from shared.verdict.facts import Facts
from shared.verdict.proof_age import LATE_AFTER_SECONDS, outdated_after
from shared.verdict.validity import valid_proof
from shared.verdict.words import count, span

NOT_KNOWN = "not known"
COMPARED_WITHIN_SECONDS = 86_400.0  # the last comparison of lists


@dataclass(frozen=True, slots=True)
class Limits:
    """What operators may ask more or less of. Times are seconds. Defaults: see `shared.settings`."""

    writers_seconds: float = 86_400.0  # that nobody was seen writing past the outbox
    in_sync_seconds: float = 86_400.0  # of the phase without drift, before lists are compared
    lists_compared: int = 1_000


@dataclass(frozen=True, slots=True)
class Gate:
    """One of them. value: what was seen, in words; age_seconds: how old that is, None where it is of now."""

    name: str
    title: str
    value: str
    limit: str
    is_met: bool = False
    age_seconds: float | None = None
    next_steps: Sequence[str] = ()


def gates_of(phase: Phase, facts: Facts, limits: Limits) -> list[Gate]:
    """Return what must be true to advance from this phase; nothing leads on from the last."""
    return [gate(facts, limits) for gate in GATES.get(phase, ())]


def schema(facts: Facts, _limits: Limits) -> Gate:
    revision = facts.server.revision
    is_met = revision is not None and revision >= REVISION
    gate = Gate("schema", "The migration ran", revision or "none", f"revision {REVISION}", is_met=is_met)
    return _else(gate, commands.UPGRADE)


def workers(facts: Facts, _limits: Limits) -> Gate:
    value = NOT_KNOWN if facts.workers is None else f"{len(facts.alive)} alive"
    gate = Gate("workers", "A worker runs", value, "at least 1", is_met=bool(facts.alive))
    return _else(gate, commands.WORKER)


def backlog(facts: Facts, _limits: Limits) -> Gate:
    limit = f"the oldest waits under {span(LATE_AFTER_SECONDS)}"
    gate = Gate("backlog", "Live writes reach the target soon", NOT_KNOWN, limit)
    if facts.lanes is None or facts.later_versions is None:
        return _else(gate, commands.PREFLIGHT)
    if facts.later_versions:
        waits = count(facts.later_versions, "event of a later version waits", "events of later versions wait")
        return _else(replace(gate, value=waits), commands.WATCH)
    live = facts.lanes["live"]
    oldest = live.oldest_seconds or 0.0
    value = f"{live.pending:,} wait, the oldest for {span(oldest)}"
    return _else(replace(gate, value=value, is_met=oldest < LATE_AFTER_SECONDS), commands.WATCH)


def writers(facts: Facts, limits: Limits) -> Gate:
    limit = f"events are appended for them, they are refused, or none for {span(limits.writers_seconds)}"
    gate = Gate("writers", "Nobody writes past the outbox", NOT_KNOWN, limit)
    captured, now = facts.captured, facts.server.now
    if captured is None:
        return _else(gate, commands.CAPTURE_STATUS)
    if captured.mode is None or captured.installed_at is None:
        return _else(replace(gate, value="no capture is installed, so nobody is seen"), commands.CAPTURE)
    if not captured.is_whole:
        return _else(replace(gate, value="triggers of the capture are gone or disabled"), commands.CAPTURE)
    if captured.mode in {"append", "refuse"}:
        return replace(gate, value=f"captured, mode {captured.mode}", is_met=True)
    seen = (captured.last_at or 0.0, *(writer.last_at for writer in captured.writers))
    last = max(captured.installed_at, *seen)
    quiet = now - last
    gate = replace(gate, value=f"none for {span(quiet)}", is_met=quiet >= limits.writers_seconds)
    return _else(gate, commands.CAPTURE_STATUS, commands.CAPTURE)


def backfill(facts: Facts, _limits: Limits) -> Gate:
    gate = Gate("backfill", "Every row from before was enqueued", NOT_KNOWN, "a finished run of all projects")
    history = facts.history
    if history is None:
        return _else(gate, commands.PREFLIGHT)
    run, at = history.backfill, history.backfilled_at
    if run is not None and run.status in {"running", "paused"}:
        return _else(replace(gate, value=f"run {run.id} is {run.status}"), commands.RESUME)
    if at is None:
        return _else(replace(gate, value="none"), commands.BACKFILL)
    return replace(gate, value="finished", is_met=True, age_seconds=facts.server.now - at)


def letters(facts: Facts, _limits: Limits) -> Gate:
    gate = Gate("letters", "No dead letter is open", NOT_KNOWN, "0")
    if facts.letters is None:
        return _else(gate, commands.PREFLIGHT)
    opened = len(facts.letters) + facts.more_letters
    return _else(replace(gate, value=f"{opened:,}", is_met=not opened), f"{commands.LETTERS} list")


def audit(facts: Facts, _limits: Limits) -> Gate:
    gate = Gate("audit", "Both tables are equal, over all pairs", NOT_KNOWN, "in sync")
    proof = valid_proof(facts.known_history)
    if proof is None:
        return _else(gate if facts.history is None else replace(gate, value="not proved"), commands.AUDIT)
    most = outdated_after(proof.ended_at - proof.started_at)
    age = facts.server.now - proof.ended_at
    value = f"{(proof.verdict or proof.status).replace('_', ' ')}, {proof.compared:,} compared"
    gate = replace(gate, value=value, limit=f"in sync, by an audit of the last {span(most)}", age_seconds=age)
    drifted = facts.known_history.drifted
    if drifted:
        value = f"drift in {count(len(drifted), 'project', 'projects')}, by newer audits of them alone"
        return _else(replace(gate, value=value), commands.REPAIR, commands.AUDIT)
    if not proof.is_clean:
        return _else(gate, commands.REPAIR, commands.AUDIT)
    return _else(replace(gate, is_met=age <= most), commands.AUDIT)


def held(facts: Facts, limits: Limits) -> Gate:
    """Return for how long the phase has lasted in which no audit found drift: workers audit all the while."""
    gate = Gate("held", "It has stayed so for long enough", NOT_KNOWN, span(limits.in_sync_seconds))
    if facts.cutover is None:
        return _else(gate, commands.PREFLIGHT)
    lasted = facts.server.now - max(facts.cutover.since, facts.cutover.drift_at or 0.0)
    gate = replace(gate, value=span(lasted), is_met=lasted >= limits.in_sync_seconds)
    return _else(gate, commands.PHASE)


def shadow(facts: Facts, limits: Limits) -> Gate:
    """Return what comparisons of this phase found. A mismatch stays one: only a new phase begins anew."""
    within = span(COMPARED_WITHIN_SECONDS)
    limit = f"{limits.lists_compared:,} lists or more, the last within {within}, and 0 mismatches"
    gate = Gate("shadow", "Comparisons of lists found no difference", NOT_KNOWN, limit)
    if facts.cutover is None:
        return _else(gate, commands.PREFLIGHT)
    seen = facts.cutover.shadow
    value = f"{count(seen.compared, 'list', 'lists')}, {count(seen.mismatched, 'mismatch', 'mismatches')}"
    age = None if seen.last_at is None else facts.server.now - seen.last_at
    gate = replace(gate, value=value, age_seconds=age)
    if seen.mismatched:
        return _else(gate, commands.REPAIR, commands.AUDIT, commands.BACK)
    is_enough = seen.compared >= limits.lists_compared
    return _else(replace(gate, is_met=is_enough and (age or 0.0) <= COMPARED_WITHIN_SECONDS), commands.PHASE)


def _else(gate: Gate, *steps: str) -> Gate:
    """Return the gate with what to type where it is not met."""
    return gate if gate.is_met else replace(gate, next_steps=steps)


GATES: dict[Phase, Sequence[Callable[[Facts, Limits], Gate]]] = {
    Phase.LEGACY_ONLY: (schema, workers, backlog, writers),
    Phase.OUTBOX: (workers, backlog, writers, backfill, letters, audit),
    Phase.VERIFIED: (workers, backlog, writers, letters, audit, held),
    Phase.SHADOW_READS: (workers, backlog, writers, letters, audit, shadow),
}
