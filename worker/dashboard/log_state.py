"""Everything that is known of a log: each line is folded in once, and the whole is of bounded size."""

import re
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from typing import Any

from shared.logs.declaring import LOG_VERSION
from worker.dashboard import lags
from worker.dashboard.audits import Audits, Findings
from worker.dashboard.backfills import ENDS, Backfills
from worker.dashboard.cutovers import Cutovers
from worker.dashboard.evidence import Evidence, facts_of, newest_beat
from worker.dashboard.history import history_of
from worker.dashboard.letters import CLOSINGS, DeadLetters
from worker.dashboard.log_line import EARLIEST, SHAPES, BrokenLineError, LogLine, Stamps, cut, parse
from worker.dashboard.marks import MARKED, Marks
from worker.dashboard.page_state import LANES, LaneTotals, LogSource, PageState
from worker.dashboard.page_verdict import go_on, page_verdict, with_the_end
from worker.dashboard.rollbacks import Rollbacks
from worker.dashboard.spells import Spells
from worker.dashboard.steps import OUTCOMES, Step, Timeline
from worker.dashboard.troubles import Troubles
from worker.dashboard.workers import Workers

AHEAD_SECONDS = 86_400.0  # a clock may be wrong by so much before its lines are no use
WRONG_CLOCK_MS = 1000.0
LONGEST_SAMPLE = 200
LONGEST_UNREAD = 500
MOST_UNREAD = 20
NO_TEXT = re.compile("[\ud800-\udfff]")  # what `surrogateescape` makes of bytes that are none
ALARMING = ("warning", "error", "critical")  # a level may be anything, also what no set takes


@dataclass(slots=True)
class Clock:
    """How far the clock of the machine that wrote a file is ahead, as the last heartbeat in it says."""

    ahead_seconds: float = 0.0

    def set_by(self, heartbeat: LogLine) -> None:
        """Take a heartbeat's offset, if it is worth correcting."""
        offset = heartbeat["clock_offset_ms"]
        if offset is not None:
            self.ahead_seconds = offset / 1000 if abs(offset) > WRONG_CLOCK_MS else 0.0

    def corrected(self, at: float) -> float:
        """Return the time by PostgreSQL's clock; what makes no sense is left alone."""
        right = at - self.ahead_seconds
        return right if right >= EARLIEST else at


class Total:
    """One lane, over everything that was read."""

    def __init__(self) -> None:
        self.step = Step()
        self.postponed = 0
        self.batches = 0

    def shown(self, name: str) -> LaneTotals:
        outcomes = self.step.settled.get(name, [0] * len(OUTCOMES))
        named = dict(zip(OUTCOMES, outcomes, strict=True))
        return LaneTotals(name, named, self.postponed, self.batches, self.step.overall(name))


class LogState:
    """What all lines together say; `now` is the reader's clock."""

    def __init__(self, now: Callable[[], float] = time.time) -> None:
        self.now = now
        self.source = LogSource(0, 0, 0, 0, 0, None, 0, 0, None, None)
        self._stamps = Stamps()
        self._latest = now() + AHEAD_SECONDS
        self._workers = Workers()
        self._audits = Audits()
        self._findings = Findings()
        self._letters = DeadLetters()
        self._backfills = Backfills()
        self._rollbacks = Rollbacks()
        self._cutovers = Cutovers()
        self._spells = Spells()
        self._troubles = Troubles()
        self._marks = Marks()
        self._lanes = {lane: Total() for lane in LANES}
        self._timeline = Timeline()
        self._handlers: dict[str, Callable[[LogLine, float], None]] = {
            "worker_started": self._workers.started,
            "worker_stopped": self._workers.stopped,
            "worker_heartbeat": self._heartbeat,
            "batch_settled": self._batch,
            "event_settled": self._event,
            "collection_written": self._written,
            "audit_started": self._audits.started,
            "audit_progress": self._audits.progress,
            "audit_finished": self._audits.finished,
            "audit_finding": self._findings.found,
            "audit_finding_repaired": self._findings.repaired,
            "backfill_started": self._backfills.started,
            "backfill_chunk": self._backfills.chunk,
            "backfill_throttled": self._backfills.throttled,
            "backfill_unthrottled": self._backfills.throttled,
            "backfill_taken_over": self._backfills.counted,
            "going_back_counted": self._cutovers.counted,
            "rollback_started": self._rollbacks.started,
            "rollback_chunk": self._rollbacks.chunk,
            "rollback_finished": self._rollbacks.finished,
            **dict.fromkeys(ENDS, self._backfills.counted),
            **dict.fromkeys(CLOSINGS, self._letters.closed),
        }
        self._shown_elsewhere = {*self._handlers, "audit_repair_verified"}

    def fold(self, texts: Iterable[str], clock: Clock) -> None:
        """Take lines of a file, without their ends; blank ones are passed over. Nothing in them raises."""
        self._latest = self.now() + AHEAD_SECONDS
        for text in texts:
            try:
                self._take(parse(text), clock)
            except BrokenLineError:
                if not text or text.isspace():
                    continue
                self.broken(text)
                continue
            self.source.lines += 1

    def broken(self, text: str) -> None:
        """Count a line that is no use, and keep its beginning."""
        self.source.lines += 1
        self.source.broken += 1
        sample = cut(text[: LONGEST_SAMPLE + 1], LONGEST_SAMPLE)
        self.source.broken_sample = NO_TEXT.sub("\N{REPLACEMENT CHARACTER}", sample)

    def not_read(self, what: str) -> None:
        if len(self.source.unread) < MOST_UNREAD:
            self.source.unread.append(NO_TEXT.sub("\N{REPLACEMENT CHARACTER}", cut(what, LONGEST_UNREAD)))

    def _take(self, line: dict[str, Any], clock: Clock) -> None:
        event = line.get("event")
        if type(event) is not str:
            raise BrokenLineError
        at = self._stamps.seconds(line.get("timestamp"))
        if at > self._latest:
            raise BrokenLineError
        shape = SHAPES.get(event)
        if shape is None:
            self._unknown(line, clock.corrected(at))
        elif not shape.fits(line):
            self._misshapen(line)
        else:
            if event == "worker_heartbeat":
                clock.set_by(line)
            self._known(line, event, clock.corrected(at))

    def _known(self, line: LogLine, event: str, at: float) -> None:
        if (handler := self._handlers.get(event)) is not None:
            handler(line, at)
        if event in MARKED:
            self._marks.take(line, at)
        if line.get("schema_version") != LOG_VERSION:
            self._count_version(line)
        if event not in self._shown_elsewhere and line.get("level") in ALARMING:
            self._troubles.take(line, at)
        self._saw(at)

    def _unknown(self, line: LogLine, at: float) -> None:
        self.source.unknown += 1
        self._count_version(line)
        if line.get("level") in ALARMING:
            self._troubles.take(line, at)
        self._saw(at)

    def _misshapen(self, line: LogLine) -> None:
        """Pass over a line of another version of ours; one of this version is broken."""
        version = line.get("schema_version")
        if type(version) is not int or version == LOG_VERSION:
            raise BrokenLineError
        self._count_version(line)
        self.source.unknown += version < LOG_VERSION

    def _count_version(self, line: LogLine) -> None:
        version = line.get("schema_version")
        self.source.newer_schema += type(version) is int and version > LOG_VERSION

    def _saw(self, at: float) -> None:
        if self.source.last_at is None or at > self.source.last_at:
            self.source.last_at = at
        if self.source.first_at is None or at < self.source.first_at:
            self.source.first_at = at

    def _heartbeat(self, line: LogLine, at: float) -> None:
        self._workers.heartbeat(line, at)
        self._spells.heard(at)
        self._cutovers.heartbeat(line, at)
        step = self._timeline.at(at, self._latest - AHEAD_SECONDS)
        for lane in LANES:
            step.wait(lane, line[f"pending_{lane}"], line[f"oldest_{lane}_seconds"])

    def _batch(self, line: LogLine, at: float) -> None:
        if (total := self._lanes.get(line["lane"])) is None:
            raise BrokenLineError
        lane = line["lane"]
        counts = lags.counts_of(line["lag_ms_counts"])
        outcomes = [line[outcome] for outcome in OUTCOMES]
        longest_ms = line["lag_ms_max"]
        self._timeline.at(at, self._latest - AHEAD_SECONDS).settle(lane, outcomes, counts, longest_ms)
        total.step.settle(lane, outcomes, counts, longest_ms)
        total.postponed += line["postponed"]
        total.batches += 1

    def _event(self, line: LogLine, at: float) -> None:
        if line["outcome"] == "dead":
            self._letters.died(line, at)

    def _written(self, line: LogLine, at: float) -> None:  # noqa: ARG002 - the signature of a handler
        self._timeline.at(at, self._latest - AHEAD_SECONDS).written += 1

    def _evidence(self, now: float, dead_letters_open: int) -> Evidence:
        history = history_of(self._audits, self._findings, self._backfills, self._rollbacks, now)
        letters = self._letters.open_ones(dead_letters_open)
        beat = newest_beat(self._workers)
        return Evidence(
            facts=facts_of(
                self._workers, beat, history, letters=letters, open_letters=dead_letters_open, now=now
            ),
            audits=self._audits.ended,
            last_heartbeat_at=self._workers.last_heartbeat_at,
            database_away_since=self._workers.database_away_since(now),
            watched_since=self._spells.last_began_at,
            letter_died_at=self._letters.died_at(letters[0].id) if letters else None,
            beat=beat,
        )

    def page_state(self, *, live: bool) -> PageState:
        """Return everything on the page, as of now; its lists are shared with the state, not copied."""
        now = self.now()
        end = now if live or self.source.last_at is None else self.source.last_at
        queue = self._workers.queue
        none_open_at = queue.at if queue is not None and not queue.dead_letters else None
        letters = self._letters.shown(none_open_at)
        counted, counted_at = (None, 0.0) if queue is None else (queue.dead_letters, queue.at)
        dead_letters_open = self._letters.open_since(counted, counted_at)
        evidence = self._evidence(now, dead_letters_open)
        answer = page_verdict(evidence)
        if not live:
            answer = with_the_end(answer, self._evidence(end, dead_letters_open))
        return PageState(
            made_at=now,
            live=live,
            source=replace(self.source),
            verdict=answer,
            go_on=go_on(evidence, answer),
            waiting=self._workers.waiting(),
            dead_letters_open=dead_letters_open,
            lanes=[total.shown(lane) for lane, total in self._lanes.items()],
            audits=self._audits.ended,
            findings=self._findings.shown(self._audits.of_everything()),
            findings_total=self._findings.total,
            dead_letters=letters,
            dead_letters_total=self._letters.total,
            backfills=self._backfills.shown(),
            workers=self._workers.shown(now),
            troubles=self._troubles.shown(),
            series=self._timeline.series(end, now),
            counted_at=None if queue is None else queue.at,
            marks=self._marks.shown(
                self._cutovers.turns(), self._spells.gaps, self._workers.last_heartbeat_at, end
            ),
            cutover=self._cutovers.shown(),
        )
