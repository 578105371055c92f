"""What the lines of a log add up to, whatever their order and their number."""

import itertools
import json
import math
import random
from collections.abc import Callable, Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared.logs.contract import CONTRACT
from tests.dashboard.loglines import NOW, batch, fields, folded, line, stamp
from worker.dashboard.lags import counts_of, percentiles
from worker.dashboard.log_state import Clock, LogState
from worker.dashboard.page_state import PageState
from worker.dashboard.rendering import to_json
from worker.telemetry.log import lag_step


def shown(*lines: str, live: bool = False, now: float = NOW) -> PageState:
    return folded(*lines, now=now).page_state(live=live)


def without_order(page_state: PageState) -> dict[str, object]:
    content: dict[str, object] = json.loads(to_json(page_state))
    return content


@given(st.lists(st.floats(1.0, 1e7), min_size=1, max_size=500))
def test_percentiles_are_within_five_percent_of_the_true_ones(lags: list[float]) -> None:
    counts: dict[str, int] = {}
    for lag in lags:
        counts[str(lag_step(lag))] = counts.get(str(lag_step(lag)), 0) + 1
    found = percentiles(counts_of(counts))
    for name, share in (("p50", 0.5), ("p95", 0.95), ("p99", 0.99)):
        true = sorted(lags)[math.ceil(share * len(lags)) - 1]
        assert found[name] == pytest.approx(true, rel=0.05)


def test_lags_and_outcomes_add_up_by_lane() -> None:
    live, repair, backfill = shown(
        batch(lags={10: 98}, applied=90, stale=5, conflated=3),
        batch(lags={20: 1, 30: 1}, applied=1, dead=1, postponed=4),
        batch(lane="repair", lags={5: 1}, obsolete=1),
    ).lanes
    assert live.outcomes == {"applied": 91, "stale": 5, "conflated": 3, "obsolete": 0, "dead": 1}
    assert (live.postponed, live.batches) == (4, 2)
    middle = {bucket: round(1.1 ** (bucket - 0.5), 3) for bucket in (10, 20)}
    assert live.lag_ms == {
        "p50": middle[10],
        "p95": middle[10],
        "p99": middle[20],
        "max": pytest.approx(1.1**30),
    }
    assert repair.outcomes["obsolete"] == 1
    assert (backfill.batches, backfill.lag_ms["p50"]) == (0, None)


def test_the_newest_heartbeat_says_what_waits() -> None:
    newer = line(
        "worker_heartbeat",
        NOW - 1,
        uptime_seconds=65.0,
        pending_live=2,
        oldest_live_seconds=3.5,
        dead_letters=1,
    )
    older = line("worker_heartbeat", NOW - 6, pending_live=9, dead_letters=7)
    for lines in ((newer, older), (older, newer)):
        page_state = shown(*lines)
        assert (page_state.waiting["live"].pending, page_state.waiting["live"].oldest_seconds) == (2, 3.5)
        assert page_state.dead_letters_open == 1
        assert page_state.verdict.last_heartbeat_at == page_state.workers[0].last_heartbeat_at == NOW - 1
        assert page_state.workers[0].uptime_seconds == 65.0


def away(at: float, worker: str = "host:1") -> str:
    names = [name for name in fields("worker_heartbeat") if name.startswith(("pending", "oldest"))]
    nothing = dict.fromkeys([*names, "dead_letters", "clock_offset_ms"])
    return line("worker_heartbeat", at, worker=worker, database="away", level="warning", **nothing)


def test_the_newest_heartbeat_says_the_phase_and_the_newest_count_what_going_back_would_lose() -> None:
    phase = {"phase": "reads_moved", "epoch": 4, "phase_since": NOW - 60}
    earlier = {"phase": "outbox", "epoch": 1, "phase_since": NOW - 900}
    lines = [
        line("worker_heartbeat", NOW - 1, **phase),
        line("going_back_counted", NOW - 3, tags=2, further_links=5),
        line("worker_heartbeat", NOW - 9, **earlier),
        line("going_back_counted", NOW - 8, tags=1),
    ]
    assert folded(line("worker_heartbeat")).page_state(live=True).cutover is None
    for read in (lines, lines[::-1]):
        cutover = folded(*read).page_state(live=True).cutover
        assert cutover is not None
        assert (cutover.title, cutover.number, cutover.since) == ("Reads moved", 4, NOW - 60)
        assert (cutover.lost_counted_at, cutover.lost) == (
            NOW - 3,
            {"further_links": 5, "tags": 2, "mappings": 0, "contexts": 0, "without_home": 0},
        )
    back = folded(*lines, line("worker_heartbeat", NOW, **earlier)).page_state(live=True).cutover
    assert back is not None
    assert (back.phase, back.lost) == ("outbox", None)


def test_a_database_is_away_when_every_worker_that_lives_says_so() -> None:
    up = line("worker_heartbeat", NOW - 3, worker="other:1")
    assert shown(away(NOW - 8), away(NOW - 3)).verdict.since == NOW - 8
    assert shown(away(NOW - 8), away(NOW - 3)).verdict.state == "database_away"
    assert shown(away(NOW - 3), up).verdict.state == "not_audited"
    dead = line("worker_heartbeat", NOW - 30, worker="other:1")
    assert shown(away(NOW - 3), dead).verdict.state == "database_away"


def test_what_waits_is_unknown_once_no_heartbeat_has_known_for_a_while() -> None:
    known = line("worker_heartbeat", NOW - 20, pending_live=4)
    assert shown(known, away(NOW - 5)).waiting["live"].pending == 4
    assert shown(known, away(NOW - 1)).waiting["live"].pending is None


def test_workers_run_fall_silent_and_stop() -> None:
    page_state = shown(
        line("worker_started", NOW - 60, worker="a:1"),
        line("worker_heartbeat", NOW - 5, worker="a:1", uptime_seconds=55.0, redis="away"),
        line("worker_started", NOW - 60, worker="b:1"),
        line("worker_heartbeat", NOW - 16, worker="b:1"),
        line("worker_heartbeat", NOW - 50, worker="c:1"),
        line("worker_stopped", NOW - 40, worker="c:1"),
        line("worker_stopped", NOW - 40, worker="d:1"),
        line("worker_started", NOW - 10, worker="d:1"),
    )
    assert {worker.name: worker.state for worker in page_state.workers} == {
        "a:1": "running", "d:1": "running", "b:1": "silent", "c:1": "stopped",
    }  # fmt: skip
    [first] = [worker for worker in page_state.workers if worker.name == "a:1"]
    assert (first.started_at, first.last_heartbeat_at, first.uptime_seconds) == (NOW - 60, NOW - 5, 55.0)
    assert (first.database, first.redis, first.stopped_at) == ("up", "away", None)


def test_a_wrong_clock_is_corrected_and_a_slightly_wrong_one_is_left() -> None:
    for offset, corrected in ((600_000.0, NOW - 600), (-600_000.0, NOW + 600), (999.0, NOW)):
        page_state = shown(line("worker_heartbeat", clock_offset_ms=offset), batch(applied=1), now=NOW + 1000)
        assert page_state.verdict.last_heartbeat_at == corrected
        assert page_state.source.last_at == corrected
        assert page_state.workers[0].clock_offset_ms == offset


def finished(at: float, verdict: str = "in_sync", **counts: object) -> str:
    level = "error" if verdict == "drift" else "info"
    return line("audit_finished", at, verdict=verdict, level=level, **counts)


def test_audits_are_ordered_by_time_whatever_the_order_of_reading() -> None:
    lines = [finished(NOW - ago, run_id=100 - ago, compared=ago) for ago in (30, 20, 10)]
    for order in itertools.permutations(lines):
        assert [audit.compared for audit in shown(*order).audits] == [30, 20, 10]


def test_an_audit_is_shown_as_it_was_logged() -> None:
    [audit] = shown(
        finished(
            NOW, "drift", run_id=4, requested_by="command", project_id="p", repair=True, compared=50,
            missing=3, mismatched=2, orphaned=1, pending=7, repaired=4, unlisted=1, duration_ms=1500.0,
            error="two are left",
        )
    ).audits  # fmt: skip
    assert (audit.run_id, audit.at, audit.verdict, audit.requested_by) == (4, NOW, "drift", "command")
    assert (audit.project_id, audit.repair, audit.compared) == ("p", True, 50)
    assert (audit.missing, audit.mismatched, audit.orphaned, audit.pending) == (3, 2, 1, 7)
    assert (audit.repaired, audit.unlisted, audit.duration_seconds, audit.error) == (
        4,
        1,
        1.5,
        "two are left",
    )


def test_of_many_audits_those_that_were_not_clean_stay_and_since_stays_true() -> None:
    lines = [finished(NOW - 60 * ago, run_id=5000 - ago) for ago in range(5000, 0, -1)]
    for ago in (4000, 1234, 1233):
        lines[5000 - ago] = finished(NOW - 60 * ago, "drift", run_id=5000 - ago, missing=1)
    beats = [line("worker_heartbeat", NOW - 15 * step) for step in range(4 * 1300, -1, -1)]
    page_state = shown(*lines, *beats)
    assert len(page_state.audits) < 1200
    assert [audit.run_id for audit in page_state.audits if audit.verdict == "drift"] == [1000, 3766, 3767]
    assert page_state.audits[-1].run_id == 4999
    assert page_state.verdict.since == NOW - 60 * 1232
    times = [audit.at for audit in page_state.audits]
    assert max(b - a for a, b in itertools.pairwise(times)) < 60 * 5000 / 100


SIDE = {"research_context": "old", "created_at": "then", "updated_at": None}


def finding(at: float, run_id: int, collection_id: str, **more: object) -> str:
    return line(
        "audit_finding", at, run_id=run_id, collection_id=collection_id, project_id="p",
        differs=["research_context"], legacy={**SIDE, "research_context": "new"}, target=SIDE, **more,
    )  # fmt: skip


def test_a_finding_is_shown_with_both_sides_and_what_became_of_it() -> None:
    page_state = shown(
        finding(NOW - 9, 1, "a"),
        finding(NOW - 8, 1, "b", kind="missing"),
        line(
            "audit_finding_repaired", NOW - 5, run_id=1, collection_id="a", target={"research_context": "new"}
        ),
        line("audit_finding_repaired", NOW - 5, run_id=2, collection_id="b"),
        finished(NOW - 4, "repaired", repaired=1),
    )
    assert page_state.findings_total == 2
    b, a = page_state.findings
    assert (a.collection_id, a.project_id, a.kind, a.differs) == (
        "a",
        "p",
        "mismatched",
        ["research_context"],
    )
    assert (a.before, a.legacy) == (SIDE, {**SIDE, "research_context": "new"})
    assert (a.after, a.outcome, a.repaired_at) == ({"research_context": "new"}, "repaired", NOW - 5)
    assert (b.kind, b.outcome, b.after, b.agreed_at) == ("missing", None, None, None)


def test_a_finding_agrees_since_the_first_whole_audit_after_it_that_was_clean() -> None:
    [found] = shown(
        finding(NOW - 90, 1, "a"),
        finished(NOW - 95),
        finished(NOW - 80, "drift", missing=1),
        finished(NOW - 70, project_id="p"),
        finished(NOW - 60),
        finished(NOW - 50),
    ).findings
    assert found.agreed_at == NOW - 60


def test_of_many_findings_the_newest_stay_and_all_are_counted() -> None:
    page_state = shown(*(finding(NOW - 5000 + number, 1, str(number)) for number in range(2000)))
    assert page_state.findings_total == 2000
    assert [found.collection_id for found in page_state.findings] == [str(n) for n in range(1999, 1499, -1)]


def died(at: float, event_id: int, **more: object) -> str:
    return line("event_settled", at, event_id=event_id, level="error", outcome="dead", **more)


CLOSING = {"letters": 1, "event_ids": [7]}


@pytest.mark.parametrize("how", ["superseded", "replayed", "discarded"])
def test_a_letter_is_closed_by_the_line_that_names_it_whichever_is_read_first(how: str) -> None:
    lines = (
        died(NOW - 9, 7, sqlstate="22001", error="too long"),
        line(f"dead_letters_{how}", NOW - 3, **CLOSING),
    )
    for order in (lines, lines[::-1]):
        page_state = shown(*order, died(NOW - 2, 8))
        assert [letter.state for letter in page_state.dead_letters] == ["dead", how]
        letter = page_state.dead_letters[1]
        assert (letter.closed_at, letter.sqlstate, letter.error) == (NOW - 3, "22001", "too long")
        assert (page_state.dead_letters_open, page_state.dead_letters_total) == (1, 2)


def test_a_heartbeat_that_counts_none_closes_what_died_before_it() -> None:
    page_state = shown(died(NOW - 9, 7), line("worker_heartbeat", NOW - 5, dead_letters=0), died(NOW - 2, 8))
    assert [letter.state for letter in page_state.dead_letters] == ["dead", "closed"]
    assert page_state.dead_letters_open == 1


def test_open_letters_are_those_counted_and_what_happened_since() -> None:
    counted = line("worker_heartbeat", NOW - 5, dead_letters=3)
    closed = line("dead_letters_discarded", NOW - 3, **CLOSING)
    assert shown(died(NOW - 9, 7), counted).dead_letters_open == 3
    assert shown(died(NOW - 9, 7), counted, closed).dead_letters_open == 2
    assert shown(died(NOW - 9, 7), counted, closed, died(NOW - 1, 8)).dead_letters_open == 3


def test_of_many_letters_the_newest_stay_and_all_are_counted() -> None:
    page_state = shown(*(died(NOW - 5000 + number, number) for number in range(2000)))
    assert page_state.dead_letters_total == 2000
    assert [letter.event_id for letter in page_state.dead_letters] == list(range(1999, 1499, -1))


TOTALS = {
    "run_id": 3, "processed": 200, "planned": 200, "enqueued": 150, "skipped": 50, "missing": 150,
    "mismatched": 0, "orphaned": 0, "duration_seconds": 12.5, "driver": "host:1",
}  # fmt: skip
STARTED = line("backfill_started", NOW - 60, run_id=3, planned=200, driver="host:1", project_id="p")
CHUNKS = [
    line("backfill_chunk", NOW - 60 + number, run_id=3, enqueued=30, skipped=10, processed=40 * number,
         planned=200, rows_a_second=40, eta_seconds=5.0 - number)
    for number in (1, 2, 3)
]  # fmt: skip
THROTTLED = line("backfill_throttled", NOW - 56, run_id=3, cause="live", reason="Live events are late.")
ENDED = line("backfill_finished", NOW - 40, **TOTALS)


def test_a_backfill_is_shown_as_far_as_it_is() -> None:
    for order in itertools.permutations([STARTED, *CHUNKS, THROTTLED]):
        [run] = shown(*order).backfills
        assert (run.run_id, run.status, run.started_at, run.at) == (3, "running", NOW - 60, NOW - 56)
        assert (run.processed, run.planned, run.enqueued, run.skipped) == (120, 200, 90, 30)
        assert (run.rows_a_second, run.eta_seconds) == (40, 2.0)
        assert (run.throttled_by, run.driver, run.project_id) == ("Live events are late.", "host:1", "p")


def test_a_throttled_backfill_goes_on() -> None:
    on = line("backfill_unthrottled", NOW - 50, run_id=3)
    assert shown(STARTED, THROTTLED, on).backfills[0].throttled_by is None
    assert shown(STARTED, on, THROTTLED).backfills[0].throttled_by is None


@pytest.mark.parametrize("end", ["finished", "paused", "cancelled", "interrupted"])
def test_the_end_of_a_backfill_brings_its_totals(end: str) -> None:
    ended = line(f"backfill_{end}", NOW - 40, **TOTALS)
    for order in ([STARTED, *CHUNKS, THROTTLED, ended], [ended, THROTTLED, *CHUNKS, STARTED]):
        [run] = shown(*order).backfills
        assert (run.status, run.throttled_by, run.duration_seconds) == (end, None, 12.5)
        assert (run.processed, run.enqueued, run.skipped) == (200, 150, 50)


def test_a_backfill_that_another_process_drives_is_running_still() -> None:
    taken = line("backfill_taken_over", NOW - 30, **TOTALS)
    assert shown(STARTED, taken).backfills[0].status == "running"
    resumed = line("backfill_started", NOW - 20, run_id=3, planned=200, resumed=True)
    paused = line("backfill_paused", NOW - 40, **TOTALS)
    assert shown(STARTED, paused, resumed).backfills[0].status == "running"


def test_the_newest_twenty_backfills_stay() -> None:
    runs = shown(*(line("backfill_started", NOW - 100 + n, run_id=n) for n in range(50))).backfills
    assert [run.run_id for run in runs] == list(range(49, 29, -1))


def test_warnings_without_a_place_of_their_own_are_gathered_by_kind() -> None:
    def lost(at: float, error: str) -> str:
        return line("redis_lost", at, error=error)

    troubles = shown(
        lost(NOW - 9, "TimeoutError"), lost(NOW - 2, "OSError"), lost(NOW - 5, "TimeoutError")
    ).troubles
    assert [(t.event, t.count, t.first_at, t.last_at) for t in troubles] == [
        ("redis_lost", 1, NOW - 2, NOW - 2),
        ("redis_lost", 2, NOW - 9, NOW - 5),
    ]
    assert troubles[0].fields == {"error": "OSError", "process": "worker"}
    assert troubles[0].level == "warning"


HAS_A_PLACE = {
    "worker_heartbeat", "event_settled", "audit_finding", "audit_finding_repaired", "audit_finished",
    "audit_repair_verified",
}  # fmt: skip


@pytest.mark.parametrize("event", CONTRACT)
def test_every_warning_and_error_of_the_contract_has_one_place(event: str) -> None:
    alarming = [level for level in CONTRACT[event].levels if level != "info"]
    for level in alarming:
        assert len(shown(line(event, level=level)).troubles) == (event not in HAS_A_PLACE)
    assert not shown(line(event, level="info")).troubles if "info" in CONTRACT[event].levels else alarming


def test_troubles_are_bounded_however_they_vary() -> None:
    lines = [line("redis_lost", NOW - 900 + n, error=f"Error{n}" + "x" * 100_000) for n in range(200)]
    page_state = shown(*lines)
    assert len(page_state.troubles) == 50
    assert len(to_json(page_state)) < 200_000


def test_steps_hold_what_happened_in_them() -> None:
    at = NOW - 60
    page_state = shown(
        batch(at, lags={10: 3}, applied=2, dead=1),
        batch(at + 4.9, lags={10: 1, 40: 1}, applied=2),
        batch(at + 5, lane="repair", lags={20: 1}, applied=1),
        line("worker_heartbeat", at, pending_live=5, oldest_live_seconds=1.0),
        line("worker_heartbeat", at + 4, pending_live=3, oldest_live_seconds=2.5),
        line("collection_written", at + 11),
        line("collection_written", at + 12),
        live=True,
    )
    series = page_state.series["15m"]
    assert series.step_seconds == 5
    assert series.times == [at + 5 * step for step in range(13)]
    assert series.settled["live"]["applied"][:3] == [4, 0, 0]
    assert series.settled["live"]["dead"][:2] == [1, 0]
    assert series.settled["repair"]["applied"][:3] == [0, 1, 0]
    assert series.lag_ms["live"]["p50"][:2] == [round(1.1**9.5, 3), None]
    assert series.lag_ms["live"]["p99"][0] == round(1.1**39.5, 3)
    assert (series.pending["live"][:2], series.oldest_seconds["live"][:2]) == ([5, None], [2.5, None])
    assert series.written[:4] == [0, 0, 2, 0]
    assert series.lag_overall["live"] == {
        "p50": round(1.1**9.5, 3), "p95": round(1.1**39.5, 3), "p99": round(1.1**39.5, 3),
        "max": pytest.approx(1.1**40),
    }  # fmt: skip


def a_day_of_lines(seed: int) -> list[str]:
    random_one = random.Random(seed)  # noqa: S311
    return [
        batch(NOW - random_one.uniform(0, 3 * 86_400), lags={random_one.randrange(60): 1}, applied=1)
        for _ in range(3000)
    ]


def test_every_range_adds_up_to_what_happened_in_it_in_any_order() -> None:
    lines = a_day_of_lines(1)
    first = folded(*lines).page_state(live=True)
    ordered = folded(*sorted(lines)).page_state(live=True)
    assert without_order(first) == without_order(ordered)
    for name, seconds in (("15m", 900), ("1h", 3600), ("24h", 86_400), ("all", 1e9)):
        series = first.series[name]
        end = NOW // series.step_seconds * series.step_seconds + series.step_seconds
        within = sum(json.loads(line)["timestamp"] >= _iso(end - seconds) for line in lines)
        assert sum(series.settled["live"]["applied"]) == within > 0
        assert len(series.times) <= 360


def _iso(at: float) -> str:
    return stamp(max(at, 0))


def test_a_file_s_ranges_end_at_its_newest_line_and_a_live_one_s_now() -> None:
    lines = [batch(NOW - 7200, applied=1)]
    assert shown(*lines).series["15m"].times == [NOW - 7200]
    assert shown(*lines, live=True).series["15m"].times == []


def test_lines_from_a_clock_that_is_ahead_do_not_push_others_out() -> None:
    ahead = [batch(NOW + 60 + 5 * step, applied=1) for step in range(1000)]
    mine = [batch(NOW - 5 * step, applied=1) for step in range(179, -1, -1)]
    for order in (ahead + mine, mine + ahead):
        assert sum(shown(*order, live=True).series["15m"].settled["live"]["applied"]) == 180


def test_a_file_is_blind_by_the_clock_on_the_wall_and_says_how_it_ended() -> None:
    lines = [line("worker_heartbeat", NOW), finished(NOW - 10)]
    assert shown(*lines, now=NOW + 10).verdict.state == "in_sync"
    later = shown(*lines, now=NOW + 3600).verdict
    assert (later.state, later.last_heartbeat_at, later.since) == ("blind", NOW, NOW + 15)
    assert "When the log ended: In sync: all 0 pairs agree" in later.detail
    assert "When the log ended" not in shown(*lines, now=NOW + 3600, live=True).verdict.detail


def size_of(lines: Sequence[str]) -> int:
    state = LogState(lambda: NOW)
    state.fold(lines, Clock())
    return len(to_json(state.page_state(live=True)))


def test_the_snapshot_does_not_grow_with_the_log() -> None:
    def lines(count: int) -> list[str]:
        kinds: list[Callable[[float, int], str]] = [
            lambda at, n: line("worker_heartbeat", at, worker=f"host:{n}"),
            lambda at, n: finished(at, "drift", run_id=n, missing=1, error="x" * 3000),
            lambda at, n: finding(at, n, "c" * 3000),
            lambda at, n: died(at, n, error="e" * 3000),
            lambda at, n: line("backfill_started", at, run_id=n, driver="d" * 3000),
            lambda at, n: line("redis_lost", at, error=f"{n}" * 1000),
        ]
        return [kind(NOW - 86_400 * n / count, n) for n in range(count) for kind in kinds]

    assert size_of(lines(1600)) < 1.3 * size_of(lines(800))
