"""What the newest heartbeat says beyond what waits, read with care: a log may hold anything."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, TypeVar, get_type_hints

from shared.phase.phases import ORDER, Phase
from shared.verdict.facts import FALL_BACK, Audit, Backfill, Cutover, LockHolder, Shadow
from worker.dashboard.log_line import EARLIEST, LARGEST, LogLine, cut
from worker.dashboard.rollbacks import rollback_record

LONGEST_TEXT = 500
LATEST = 2e11  # a moment that has a date, before the year 9999
Fact = TypeVar("Fact", LockHolder, Backfill)


@dataclass(frozen=True, slots=True)
class Beat:
    """The newest heartbeat. counts: whether it knew what waits. fault: why nothing may be written.

    is_of_sequences: so that `worker.preflight --repair-sequences` fixes it.
    """

    at: float
    database: str
    counts: bool
    is_read_only: bool
    fault: str | None
    is_of_sequences: bool
    redis: str
    held_by: list[LockHolder]
    tells_of_backfills: bool
    backfill: Backfill | None
    backfilled_at: float | None
    rollback: Audit | None
    cutover: Cutover | None

    @property
    def is_locked(self) -> bool:
        """Return whether PostgreSQL answers, but cannot say what waits: a table of ours is locked."""
        return self.database == "up" and not self.counts


def beat_of(line: LogLine, at: float) -> Beat:
    is_unfit = line["database"] == "unfit"
    hint = line.get("hint") or "nothing may be written there"
    found = [_fact(LockHolder, one) for one in line.get("held_by") or () if isinstance(one, dict)]
    return Beat(
        at=at,
        database=cut(line["database"], LONGEST_TEXT),
        counts=line["dead_letters"] is not None,
        is_read_only=bool(line.get("read_only")),
        fault=cut(hint, LONGEST_TEXT).partition(". ")[0].rstrip(".") if is_unfit else None,
        is_of_sequences="--repair-sequences" in hint,
        redis=cut(line["redis"], LONGEST_TEXT),
        held_by=[holder for holder in found if holder is not None],
        tells_of_backfills=line.get("backfill") is not None,
        backfill=_fact(Backfill, line.get("backfill") or {}),
        backfilled_at=_moment(line.get("backfilled_at")),
        rollback=_rollback(line.get("rollback") or {}),
        cutover=cutover_of(line),
    )


def _fact(kind: type[Fact], written: Mapping[str, Any]) -> Fact | None:
    """Return what was written under the names of the fields; None where one is missing or of another type."""
    values: dict[str, Any] = {}
    for name, hint in get_type_hints(kind).items():
        value = written.get(name)
        if not _fits(value, hint) or (name.endswith("_at") and value is not None and _moment(value) is None):
            return None
        values[name] = cut(value, LONGEST_TEXT) if isinstance(value, str) else value
    return kind(**values)


def _fits(value: object, hint: Any) -> bool:  # noqa: ANN401 - a type, or several
    if isinstance(value, (int, float)) and not -LARGEST < value < LARGEST:
        return False
    return isinstance(value, hint) or (isinstance(value, int) and isinstance(0.0, hint))


def _rollback(written: Mapping[str, Any]) -> Audit | None:
    at = _moment(written.get("ended_at"))
    return None if at is None else rollback_record(at, is_over=written.get("status") == "finished")


def cutover_of(line: LogLine) -> Cutover | None:
    """Return the phase, as far as the line says it; None where it does not, or means none that is known."""
    word, since, reason = line.get("phase"), _moment(line.get("phase_since")), line.get("phase_reason")
    if word not in ORDER or since is None:
        return None
    return Cutover(
        phase=Phase(word),
        epoch=line.get("epoch") or 0,
        since=since,
        actor="",
        falls_back=False,
        shadow=Shadow(mismatched=line.get("lists_mismatched") or 0),
        kind=FALL_BACK if line.get("fell_back") else None,
        reason=None if reason is None else cut(reason, LONGEST_TEXT),
    )


def _moment(value: object) -> float | None:
    return value if isinstance(value, (int, float)) and EARLIEST <= value < LATEST else None
