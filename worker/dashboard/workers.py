"""The worker processes, by their lines, and what their heartbeats say of the queue."""

from dataclasses import dataclass

from shared.verdict import facts
from worker.dashboard.log_line import LogLine, cut
from worker.dashboard.page_state import LANES, Waiting, Worker

BLIND_AFTER_SECONDS = 15.0
MOST_WORKERS = 200
LONGEST_NAME = 200


@dataclass(slots=True)
class Heard:
    """What was heard of one worker; the fields of its newest heartbeat."""

    started_at: float | None = None
    stopped_at: float | None = None
    heartbeat_at: float | None = None
    uptime_seconds: float | None = None
    database: str | None = None
    redis: str | None = None
    clock_offset_ms: float | None = None
    away_since: float | None = None

    def last_at(self) -> float:
        return max(at for at in (self.started_at, self.stopped_at, self.heartbeat_at, 0.0) if at is not None)

    def state(self, now: float) -> str:
        """Return running, silent or stopped. A name can come back: process ids do."""
        begun = max(self.started_at or 0.0, self.heartbeat_at or 0.0)
        if self.stopped_at is not None and self.stopped_at >= begun:
            return "stopped"
        return "running" if now - self.last_at() <= BLIND_AFTER_SECONDS else "silent"


@dataclass(slots=True)
class Queue:
    """What waits, by the newest heartbeat that knew."""

    at: float
    waiting: dict[str, Waiting]
    dead_letters: int
    unknown_version: int  # events that wait for a worker of a later release


class Workers:
    """All workers, by name. Lines may come in any order: the newer ones count."""

    def __init__(self) -> None:
        self._heard: dict[str, Heard] = {}
        self.last_heartbeat_at: float | None = None
        self.last_heartbeat: LogLine | None = None
        self.queue: Queue | None = None

    def _of(self, line: LogLine) -> Heard:
        name = cut(line["worker"], LONGEST_NAME)
        if name not in self._heard and len(self._heard) >= MOST_WORKERS:
            del self._heard[min(self._heard, key=lambda known: self._heard[known].last_at())]
        return self._heard.setdefault(name, Heard())

    def started(self, line: LogLine, at: float) -> None:
        worker = self._of(line)
        worker.started_at = max(at, worker.started_at or 0.0)

    def stopped(self, line: LogLine, at: float) -> None:
        worker = self._of(line)
        worker.stopped_at = max(at, worker.stopped_at or 0.0)

    def heartbeat(self, line: LogLine, at: float) -> None:
        worker = self._of(line)
        if at >= (worker.heartbeat_at or 0.0):
            away = line["database"] == "away"
            worker.away_since = (worker.away_since or at) if away else None
            worker.heartbeat_at = at
            worker.uptime_seconds = line["uptime_seconds"]
            worker.database = cut(line["database"], LONGEST_NAME)
            worker.redis = cut(line["redis"], LONGEST_NAME)
            worker.clock_offset_ms = line["clock_offset_ms"]
        if at >= (self.last_heartbeat_at or 0.0):
            self.last_heartbeat_at, self.last_heartbeat = at, line
        if line["dead_letters"] is not None and (self.queue is None or at >= self.queue.at):
            waiting = {
                lane: Waiting(line[f"pending_{lane}"], line[f"oldest_{lane}_seconds"]) for lane in LANES
            }
            unknown_version = line.get("pending_unknown_version") or 0
            self.queue = Queue(at, waiting, line["dead_letters"], unknown_version)

    def waiting(self) -> dict[str, Waiting]:
        """Return what waits in each lane; nothing is known once all heartbeats have ceased to know."""
        if self.queue is None or (self.last_heartbeat_at or 0.0) - self.queue.at > BLIND_AFTER_SECONDS:
            return {lane: Waiting(None, None) for lane in LANES}
        return self.queue.waiting

    def database_away_since(self, now: float) -> float | None:
        """Return since when every worker that lives says that PostgreSQL is away; None when one does not."""
        living = [worker for worker in self._heard.values() if worker.state(now) == "running"]
        since = [worker.away_since for worker in living if worker.away_since is not None]
        return min(since) if since and len(since) == len(living) else None

    def processes(self, now: float) -> list[facts.Worker]:
        """Return all of them as facts; by a log one is heard each five seconds."""
        return [
            facts.Worker(name, heard.last_at(), heard.stopped_at if heard.state(now) == "stopped" else None)
            for name, heard in self._heard.items()
        ]

    def shown(self, now: float) -> list[Worker]:
        workers = [
            Worker(
                name=name,
                state=heard.state(now),
                started_at=heard.started_at,
                last_heartbeat_at=heard.heartbeat_at,
                stopped_at=heard.stopped_at if heard.state(now) == "stopped" else None,
                uptime_seconds=heard.uptime_seconds,
                database=heard.database,
                redis=heard.redis,
                clock_offset_ms=heard.clock_offset_ms,
            )
            for name, heard in sorted(self._heard.items(), key=lambda item: -item[1].last_at())
        ]
        return sorted(workers, key=lambda worker: ("running", "silent", "stopped").index(worker.state))
