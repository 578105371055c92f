"""What the page shows, at one moment: the interface between what reads the log and what draws it.

It is served as JSON, `dataclasses.asdict` of `PageState`, under the name `/snapshot.json`. Times are UTC in
seconds since 1970, durations in seconds, lags in milliseconds. None means unknown. Every list is bounded,
whatever the size of the log.
"""

from dataclasses import dataclass, field
from typing import Literal

LANES = ("live", "repair", "backfill")

Tone = Literal["good", "busy", "warning", "bad", "unknown"]


@dataclass(slots=True)
class PageVerdict:
    """The answer on top of the page, e.g. state `in_sync`, title "In sync", tone `good`.

    state: the word of the shared rules (shared/verdict/rules.py), or what only a log can be: blind (no
    heartbeat), database_away.

    title: the few words on top. It holds no age: the page shows how long ago `verified_at` and
    `last_heartbeat_at` were, by its own clock. detail: the sentence. next_steps: commands, as one types them.
    since: when the state began, as far as it was watched without a gap.
    """

    state: str
    tone: Tone
    title: str
    detail: str
    since: float | None = None
    verified_at: float | None = None  # when the last audit ended that compared everything
    last_heartbeat_at: float | None = None
    blind_after_seconds: float = 15.0
    next_steps: list[str] = field(default_factory=list)


@dataclass(slots=True)
class GoOn:
    """Whether the operator may take the next step, and, if not, each reason as a sentence."""

    may: bool
    reasons: list[str] = field(default_factory=list)


@dataclass(slots=True)
class Audit:
    """One audit that ended; its counts as in `audit_finished`, None where it failed: it proves nothing."""

    run_id: int
    at: float
    verdict: str | None  # None: it failed
    requested_by: str
    project_id: str | None
    repair: bool
    compared: int | None
    missing: int | None
    mismatched: int | None
    orphaned: int | None
    pending: int | None
    repaired: int | None
    unlisted: int
    duration_seconds: float
    error: str | None = None


@dataclass(slots=True)
class Finding:
    """One pair that differed. `legacy` should be there, `before` was there, `after` its repair `after` is."""

    run_id: int
    at: float
    collection_id: str
    project_id: str
    kind: str  # missing | mismatched | orphaned
    differs: list[str]
    legacy: dict[str, str | None] | None
    before: dict[str, str | None] | None
    after: dict[str, str | None] | None = None
    outcome: str | None = None  # repaired | still_differs | pending; None: not repaired
    repaired_at: float | None = None
    agreed_at: float | None = None  # when the first audit of everything after it ended without drift


@dataclass(slots=True)
class DeadLetter:
    """One event that died, and whether its letter is open still."""

    event_id: int
    at: float
    collection_id: str
    project_id: str | None
    event_type: str
    source: str
    sqlstate: str | None
    error: str
    state: str = "dead"  # dead | superseded | replayed | discarded | closed: no line says how
    closed_at: float | None = None


@dataclass(slots=True)
class Backfill:
    """One backfill run, as far as its lines show."""

    run_id: int
    status: str  # running | paused | cancelled | finished | interrupted
    started_at: float | None
    at: float  # of its last line
    processed: int
    planned: int
    enqueued: int
    skipped: int
    rows_a_second: float | None = None
    eta_seconds: float | None = None
    throttled_by: str | None = None  # the sentence
    duration_seconds: float | None = None
    driver: str | None = None
    project_id: str | None = None


@dataclass(slots=True)
class Worker:
    """One worker process, by its lines."""

    name: str  # host:pid:drawn
    state: str  # running | silent | stopped
    started_at: float | None
    last_heartbeat_at: float | None
    stopped_at: float | None
    uptime_seconds: float | None
    database: str | None  # up | away
    redis: str | None
    clock_offset_ms: float | None


@dataclass(slots=True)
class Waiting:
    """What waits in one lane, by the newest heartbeat. `pending` is counted up to 100,000."""

    pending: int | None
    oldest_seconds: float | None


@dataclass(slots=True)
class LaneTotals:
    """One lane's totals over everything that was read."""

    name: str  # live | repair | backfill
    outcomes: dict[str, int]  # applied | stale | conflated | obsolete | dead
    postponed: int  # each time an event was
    batches: int
    lag_ms: dict[str, float | None]  # p50 | p95 | p99 | max


@dataclass(slots=True)
class Trouble:
    """A warning or an error not shown elsewhere, how often it came, and the fields of its last line."""

    event: str
    level: str
    count: int
    first_at: float
    last_at: float
    fields: dict[str, object]


@dataclass(slots=True)
class Cutover:
    """The phase of the cutover, by the newest heartbeat that says it, and what going back would lose.

    lost: numbers by kind, as in `going_back_counted`; None where nobody counts, or no line says it.
    """

    phase: str
    number: int
    title: str
    since: float  # by PostgreSQL's clock
    fell_back: bool
    lost: dict[str, int] | None = None
    lost_counted_at: float | None = None


@dataclass(slots=True)
class Series:
    """Numbers over time, as columns of the same length; `None` where nothing was said.

    times: the beginning of each step. per step: `settled[lane][outcome]` events, `lag_ms[lane]["p50"|"p95"|
    "p99"]` and the number of events that they are of as `lag_count[lane]`, `pending[lane]` (the highest),
    `oldest_seconds[lane]` (the highest), `written` (by the API).
    """

    step_seconds: float
    times: list[float] = field(default_factory=list)
    settled: dict[str, dict[str, list[int]]] = field(default_factory=dict)
    lag_ms: dict[str, dict[str, list[float | None]]] = field(default_factory=dict)
    lag_count: dict[str, list[int]] = field(default_factory=dict)
    lag_overall: dict[str, dict[str, float | None]] = field(
        default_factory=dict
    )  # also "max"; all steps as one
    pending: dict[str, list[int | None]] = field(default_factory=dict)
    oldest_seconds: dict[str, list[float | None]] = field(default_factory=dict)
    written: list[int] = field(default_factory=list)


@dataclass(slots=True)
class Mark:
    """What bends the curves at a time, or from a time on until another.

    kind: worker_started, worker_stopped, rolled_back (number: of rows removed), blind (no heartbeat from then
    on), phase_turned or reads_fell_back (number: of the phase), or of a backfill (number: of the run)
    backfill_started, backfill_resumed, and its ends.
    """

    kind: str
    at: float
    until: float | None = None  # of a blind spell; None while it lasts
    number: int | None = None
    subject: str | None = None  # the worker's name


@dataclass(slots=True)
class LogSource:
    """How much of the log was read, and how much of it was no use."""

    files: int
    bytes_read: int
    bytes_total: int
    lines: int
    broken: int  # not JSON, or not a line of ours
    broken_sample: str | None  # the last of them, cut
    unknown: int  # events that this version does not know
    newer_schema: int
    first_at: float | None
    last_at: float | None
    unread: list[str] = field(default_factory=list)  # files that may be parts of the logs, and why not read


@dataclass(slots=True)
class PageState:
    """Everything on the page."""

    made_at: float
    live: bool  # served, and growing; else a file to keep: its clock stands still at made_at
    source: LogSource
    verdict: PageVerdict
    go_on: GoOn
    waiting: dict[str, Waiting]  # live | repair | backfill
    dead_letters_open: int | None  # by the newest heartbeat, else by what was read
    lanes: list[LaneTotals]
    audits: list[Audit]  # the newest last, thinned evenly beyond a few hundred
    findings: list[Finding]  # the newest first
    findings_total: int
    dead_letters: list[DeadLetter]  # the newest first
    dead_letters_total: int
    backfills: list[Backfill]  # the newest first
    workers: list[Worker]
    troubles: list[Trouble]  # the newest first
    series: dict[str, Series]  # by range: "15m", "1h", "24h", "all"
    counted_at: float | None = None  # when a heartbeat last said what waits
    marks: list[Mark] = field(default_factory=list)  # by time, the newest last
    cutover: Cutover | None = None
