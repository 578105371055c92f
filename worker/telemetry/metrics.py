"""The worker's metrics, served to Prometheus by a thread: docs/metrics.md says what each one means."""

import errno
import time
from collections import defaultdict
from collections.abc import Iterator
from wsgiref.simple_server import WSGIServer

from prometheus_client import Metric, start_http_server
from prometheus_client.registry import Collector

from shared.capture import OPERATIONS
from shared.lanes import KNOWN_LANES
from shared.metrics import Counter, Histogram, gauge, gauges, open_registry
from shared.phase.losses import KINDS
from shared.phase.phases import Phase
from shared.postgres.faults import is_transient
from shared.settings import SettingsError
from worker.capture.counting import Counted
from worker.relay.batch import Batch
from worker.relay.outcomes import Outcome
from worker.telemetry.log import LANES
from worker.vitals.heartbeat import Heartbeat
from worker.vitals.runs import RunState

LAG_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300, 600)
BATCH_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30)
FINAL = [outcome for outcome in Outcome if outcome is not Outcome.POSTPONED]
VERDICTS = ("in_sync", "pending", "drift", "repaired", "incomplete")
STATUSES = ("running", "paused", "cancelled", "finished")


class MetricsPortError(SettingsError):
    """The metrics cannot be served where WORKER_METRICS_HOST and WORKER_METRICS_PORT say."""


class DatabaseMetrics(Collector):
    """What the database last reported. While it does not answer, the names are shown without numbers.

    An older number would look as if it were true now.
    """

    def __init__(self) -> None:
        self.heartbeat: Heartbeat | None = None
        self.beaten_at: float | None = None
        self.runs: RunState | None = None

    def collect(self) -> Iterator[Metric]:
        """Yield gauges, the age of the oldest pending event first."""
        yield from heartbeat_gauges(self.heartbeat, self.beaten_at)
        yield from audit_gauges(self.runs)
        yield from backfill_gauges(self.runs)
        yield from snapshot_gauges(self.runs)
        yield from cutover_gauges(self.heartbeat, self.runs)


def known(source: Heartbeat | RunState | None, field: str) -> float | None:
    value: float | None = getattr(source, field, None)
    return value


def of_each_lane(heartbeat: Heartbeat | None, field: str) -> dict[str, float | None]:
    """Read the field of each lane, such as `pending_{}`."""
    return {lane: known(heartbeat, field.format(lane)) for lane in LANES}


def only(chosen: str | None, words: tuple[str, ...]) -> dict[str, float | None]:
    """Give the chosen word a 1 and the others a 0; none of them anything while nothing is chosen."""
    return {word: None if chosen is None else float(word == chosen) for word in words}


def heartbeat_gauges(heartbeat: Heartbeat | None, beaten_at: float | None) -> Iterator[Metric]:
    """Yield the heartbeat's fields, received at that time by this process's clock."""
    yield gauges(
        "oldest_pending_seconds",
        "Age of the oldest event that waits; 0 when none does.",
        "lane",
        of_each_lane(heartbeat, "oldest_{}_seconds"),
    )
    yield gauges(
        "pending_events",
        "Events that wait, counted up to 100,000.",
        "lane",
        of_each_lane(heartbeat, "pending_{}"),
    )
    yield gauge(
        "unknown_version_events",
        "Events that wait for a worker of a later release.",
        known(heartbeat, "pending_unknown_version"),
    )
    yield gauge("dead_letters_open", "Dead letters that are open.", known(heartbeat, "dead_letters"))
    yield gauge(
        "heartbeat_timestamp_seconds", "When the worker last showed that it lives, by its clock.", beaten_at
    )
    for service, meaning in (
        ("database", "Whether PostgreSQL answered the last heartbeat."),
        ("redis", "Whether the doorbell is heard."),
    ):
        yield gauge(f"{service}_up", meaning, only(getattr(heartbeat, service, None), ("up",))["up"])
    offset_ms = known(heartbeat, "clock_offset_ms")
    offset = None if offset_ms is None else offset_ms / 1000
    yield gauge("clock_offset_seconds", "The worker's clock less PostgreSQL's.", offset)


def audit_gauges(runs: RunState | None) -> Iterator[Metric]:
    """Yield the findings of the last whole audit that finished."""
    found = {kind: known(runs, kind) for kind in ("compared", "missing", "mismatched", "orphaned", "pending")}
    verdict = None if runs is None else runs.verdict
    yield gauge(
        "audit_finished_timestamp_seconds",
        "When the last whole audit finished, by PostgreSQL's clock.",
        known(runs, "audited_at"),
    )
    yield gauges("audit_verdict", "1 for the verdict of that audit.", "verdict", only(verdict, VERDICTS))
    yield gauges("audit_pairs", "Pairs in that audit, as they were found.", "kind", found)


def backfill_gauges(runs: RunState | None) -> Iterator[Metric]:
    status = None if runs is None else runs.status
    rows = {state: known(runs, state) for state in ("processed", "enqueued", "skipped")}
    throttled = None if status is None else known(runs, "throttled")
    yield gauges(
        "backfill_status", "1 for the status of the last backfill.", "status", only(status, STATUSES)
    )
    yield gauge("backfill_planned_rows", "Rows that it counted at its start.", known(runs, "planned"))
    yield gauges("backfill_rows", "Rows of the last backfill so far.", "state", rows)
    yield gauge("backfill_throttled", "Whether the last backfill waits.", throttled)


def snapshot_gauges(runs: RunState | None) -> Iterator[Metric]:
    """Yield what keeps PostgreSQL from forgetting acknowledged events."""
    yield gauge(
        "snapshot_held_seconds",
        "How long a snapshot has kept PostgreSQL from removing acknowledged events.",
        known(runs, "snapshot_held_seconds"),
    )
    yield gauge(
        "dead_events", "Deleted events not forgotten, by PostgreSQL's estimate.", known(runs, "dead_events")
    )


def cutover_gauges(heartbeat: Heartbeat | None, runs: RunState | None) -> Iterator[Metric]:
    """Yield where the cutover is, and what going back would lose, where that is counted."""
    phase: str | None = getattr(heartbeat, "phase", None)
    yield gauge("phase", "The phase of the cutover, 0 to 4.", None if phase is None else Phase(phase).number)
    yield gauge(
        "fell_back", "Whether reads went back by themselves, for a mismatch.", known(heartbeat, "fell_back")
    )
    lost = {kind: known(runs, kind) for kind in KINDS}
    yield gauges("going_back_lost", "What going back would lose.", "kind", lost)
    yield gauge(
        "going_back_counted_timestamp_seconds",
        "When that was counted last, by PostgreSQL's clock.",
        known(runs, "lost_counted_at"),
    )


class WorkerMetrics:
    """The metrics of one worker process: fed from its event loop, read by the thread that serves them."""

    def __init__(self) -> None:
        self._database = DatabaseMetrics()
        self._lag = Histogram(
            "event_lag_seconds",
            "From an event's append to the end of the batch that settled it.",
            LAG_SECONDS,
            lane=LANES,
        )
        self._settled = Counter("events_settled", "Events that are done with.", lane=LANES, outcome=FINAL)
        self._postponed = Counter("events_postponed", "Times that an event was left pending.", lane=LANES)
        self._duration = Histogram(
            "batch_duration_seconds", "How long a batch's transaction took.", BATCH_SECONDS, lane=LANES
        )
        self._failures = Counter(
            "batch_failures", "Batches that changed nothing.", transient=("true", "false")
        )
        self._captured = Counter(
            "writes_captured",
            "Writes of collections that appended no event, as far as a capture saw them.",
            operation=OPERATIONS,
        )
        self.registry = open_registry(
            self._database,
            self._lag,
            self._settled,
            self._postponed,
            self._duration,
            self._failures,
            self._captured,
        )

    def batch_settled(self, batch: Batch) -> None:
        """Count a batch that is committed, once in each of its lanes."""
        ages: dict[tuple[str, Outcome], list[float]] = defaultdict(list)
        for event in batch.events:
            ages[KNOWN_LANES[event.lane], batch.settlements[event.id].outcome].append(event.age_ms)
        for (lane, outcome), of_these in ages.items():
            if outcome is Outcome.POSTPONED:
                self._postponed.add(lane, count=len(of_these))
            else:
                self._settled.add(lane, outcome, count=len(of_these))
                lags = [age / 1000 + batch.duration_seconds for age in of_these]
                self._lag.observe_all(lags, lane)
        for lane in {lane for lane, _ in ages}:
            self._duration.observe(batch.duration_seconds, lane)

    def batch_failed(self, error: Exception) -> None:
        """Count a batch that changed nothing."""
        self._failures.add("true" if is_transient(error) else "false")

    def writes_captured(self, counted: Counted) -> None:
        """Count captured writes, which no other worker counts."""
        self._captured.add(counted.operation, count=counted.writes)

    def observe_heartbeat(self, heartbeat: Heartbeat) -> None:
        self._database.heartbeat = heartbeat
        self._database.beaten_at = time.time()

    def observe_runs(self, runs: RunState | None) -> None:
        """Show from now on what the database reports of audits and backfills; with None, nothing."""
        self._database.runs = runs

    def serve(self, host: str, port: int) -> WSGIServer:
        """Serve the metrics from a thread of their own, which answers even while the event loop hangs.

        Raises:
            MetricsPortError: the address is taken, or is not this machine's.

        """
        try:
            server, _ = start_http_server(port, host, self.registry)
        except (OSError, UnicodeError) as error:
            code = errno.errorcode.get(getattr(error, "errno", None) or 0, type(error).__name__)
            msg = f"WORKER_METRICS_PORT: cannot listen on {host}:{port} ({code}); each worker needs its own."
            raise MetricsPortError(msg) from error
        return server
