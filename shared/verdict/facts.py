"""What the verdict rests on, as it was at one moment. None: not known, or not for this login to see.

Moments are seconds since 1970 by the database's clock, durations seconds.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field

from shared.phase.phases import Phase

LOCKED = "another session locks its table"  # why a part is unknown
FALL_BACK = "fall_back"  # the kind of a turn that nobody ordered
GONE_SECONDS = 5.0  # a worker that lives is heard once a second; of one that is busy, or its host, later


@dataclass(frozen=True, slots=True)
class Server:
    """The server, and the schema: revision None where the database was never migrated, or not known."""

    now: float
    revision: str | None = None
    is_standby: bool = False
    is_read_only: bool = False  # to a session that does not ask for more, as ours do not


@dataclass(frozen=True, slots=True)
class Worker:
    """One process of the last hour; `ended_at` None: it lives, or went without a word."""

    name: str
    heard_at: float
    ended_at: float | None


@dataclass(frozen=True, slots=True)
class Waiting:
    """What waits in one lane; counted up to 100,000."""

    pending: int
    oldest_seconds: float | None


@dataclass(frozen=True, slots=True)
class LockHolder:
    """Another's session that our sessions wait for, or that has locked one of our tables whole.

    held_seconds: the age of its transaction, which only some logins may see. waiting: a process of ours, and
    waited_seconds: for how long it has waited this time. Both None where nothing waits at this moment.
    """

    pid: int
    application: str | None
    role: str | None
    held_seconds: float | None
    waiting: str | None
    waited_seconds: float | None


@dataclass(frozen=True, slots=True)
class Backfill:
    """The run that was started last. has_let_go: its driver left it in good order."""

    id: int
    status: str
    in_worker: bool
    project_id: str | None
    planned: int
    processed: int
    throttled_by: str | None
    has_let_go: bool | None
    started_at: float
    heard_at: float
    finished_at: float | None


@dataclass(frozen=True, slots=True)
class Audit:
    """An audit that ended. verdict None: it failed. found: pairs that differed although no event waited."""

    id: int
    status: str
    verdict: str | None
    requested_by: str
    project_id: str | None
    repair: bool
    compared: int
    found: int
    pending: int
    repaired: int
    error: str | None
    started_at: float
    ended_at: float

    @property
    def proves(self) -> bool:
        """Return whether it compared all that it was to compare."""
        return self.status == "finished" and self.verdict not in {None, "incomplete"}

    @property
    def is_clean(self) -> bool:
        """Return whether it found nothing but what an event was on its way to fix."""
        return self.status == "finished" and self.verdict in {"in_sync", "pending"}

    @property
    def has_drift(self) -> bool:
        """Return whether pairs differ still."""
        return self.status == "finished" and self.verdict == "drift"


@dataclass(frozen=True, slots=True)
class Letter:
    """An open dead letter. is_replay: of an event that replayed another. has_home: its collection exists."""

    id: int
    collection_id: str
    sqlstate: str | None
    is_replay: bool
    has_home: bool | None = None


@dataclass(frozen=True, slots=True)
class History:
    """What ran: backfills, audits of everything, a rollback.

    backfilled_at: when the last run over all projects finished that no rollback has taken back since.
    whole: the audit of everything that ended last. proof: the last one that proved anything.
    mended_at: when the last repair ended. drifted: newer audits of one project alone that found drift.
    findings: of `whole`, the collections that differ still, as far as they are listed.
    """

    backfill: Backfill | None = None
    backfilled_at: float | None = None
    whole: Audit | None = None
    proof: Audit | None = None
    rollback: Audit | None = None
    mended_at: float | None = None
    drifted: Sequence[Audit] = ()
    is_auditing: bool = False
    findings: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class PastTheOutbox:
    """Writes of `collections` that appended no event, by one kind of writer, in the last day."""

    role: str
    application: str
    operation: str
    writes: int
    last_at: float


@dataclass(frozen=True, slots=True)
class Captured:
    """The capture in the database. mode None: not installed. is_whole: every trigger is there and enabled.

    last_at: when the last write was captured that workers have counted, of the last 30 days.
    """

    mode: str | None
    is_whole: bool
    writers: Sequence[PastTheOutbox] = ()
    installed_at: float | None = None
    last_at: float | None = None


@dataclass(frozen=True, slots=True)
class ShadowFinding:
    """A difference between both sides of a list, which neither an event nor a letter explains."""

    project_id: str
    collection_id: str
    kind: str
    found_at: float


@dataclass(frozen=True, slots=True)
class Shadow:
    """What was compared of lists in this epoch. findings: of it, the newest first, bounded.

    legacy_seconds, target_seconds: what all those reads took on either side. last_at: None before the first.
    """

    matched: int = 0
    mismatched: int = 0
    pending: int = 0
    lettered: int = 0
    dropped: int = 0
    failed: int = 0
    legacy_seconds: float = 0.0
    target_seconds: float = 0.0
    last_at: float | None = None
    findings: Sequence[ShadowFinding] = ()

    @property
    def compared(self) -> int:
        """Return how many lists were compared to their end."""
        return self.matched + self.mismatched + self.pending + self.lettered


@dataclass(frozen=True, slots=True)
class Losses:
    """What only `project_collections` holds, by kind, as a worker counted it last."""

    counted_at: float
    further_links: int
    tags: int
    mappings: int
    contexts: int
    without_home: int

    @property
    def by_kind(self) -> dict[str, int]:
        """Return what was counted, by its name."""
        return {name: value for name, value in asdict(self).items() if name != "counted_at"}


@dataclass(frozen=True, slots=True)
class Cutover:
    """The phase, and what was seen since it began. losses None: not counted yet.

    kind, reason: of the turn that led to it; None before the first. drift_at: when an audit found drift last,
    where that was in this phase, and this is the one in which it is waited for.
    """

    phase: Phase
    epoch: int
    since: float
    actor: str
    falls_back: bool
    shadow: Shadow = Shadow()
    losses: Losses | None = None
    kind: str | None = None
    reason: str | None = None
    drift_at: float | None = None

    @property
    def fell_back(self) -> bool:
        """Return whether reads went back by themselves, and nobody has turned the phase since."""
        return self.kind == FALL_BACK


@dataclass(frozen=True, slots=True)
class Facts:
    """Everything that was read. unknown: what was not, by name, and why.

    more_letters: open ones of which no more is known than that they are. late_by_seconds: how much later than
    by the database processes are heard: their heartbeats in a log are five seconds apart.
    """

    server: Server
    sequence_faults: Sequence[str] | None = None
    workers: Sequence[Worker] | None = None
    lanes: Mapping[str, Waiting] | None = None
    later_versions: int | None = None
    holders: Sequence[LockHolder] | None = None
    history: History | None = None
    letters: Sequence[Letter] | None = None
    more_letters: int = 0
    late_by_seconds: float = 0.0
    captured: Captured | None = None
    cutover: Cutover | None = None
    unknown: Mapping[str, str] = field(default_factory=dict)

    @property
    def known_history(self) -> History:
        return self.history or History()

    @property
    def alive(self) -> list[Worker]:
        """Return the workers that were heard within five seconds, and have not said that they end."""
        since = self.server.now - GONE_SECONDS - self.late_by_seconds
        return [
            worker for worker in self.workers or () if worker.ended_at is None and worker.heard_at >= since
        ]

    @property
    def waiting(self) -> int:
        return sum(lane.pending for lane in (self.lanes or {}).values())

    @property
    def oldest_seconds(self) -> float:
        """Return how long the oldest event of any lane has waited; 0 where none does."""
        return max((lane.oldest_seconds or 0.0 for lane in (self.lanes or {}).values()), default=0.0)
