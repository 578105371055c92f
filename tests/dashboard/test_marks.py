"""What bends a curve, out of lines in any order."""

import json

import pytest

from tests.dashboard.loglines import NOW, batch, fields, folded, line
from worker.dashboard.cutovers import MOST_TURNS
from worker.dashboard.marks import MOST_MARKS
from worker.dashboard.page_state import Mark
from worker.dashboard.spells import MOST_SPELLS

LIFE = [
    line("worker_started", NOW - 500, worker="host:1"),
    line("backfill_started", NOW - 450, run_id=3, resumed=False),
    line("backfill_paused", NOW - 400, run_id=3),
    line("backfill_started", NOW - 350, run_id=3, resumed=True),
    line("backfill_finished", NOW - 300, run_id=3),
    line("worker_stopped", NOW - 250, worker="host:1"),
    line("rollback_finished", NOW - 240, dry_run=True, removed=5),
    line("rollback_finished", NOW - 230, dry_run=False, removed=5),
]
MARKS = [
    Mark("worker_started", NOW - 500, subject="host:1"),
    Mark("backfill_started", NOW - 450, number=3),
    Mark("backfill_paused", NOW - 400, number=3),
    Mark("backfill_resumed", NOW - 350, number=3),
    Mark("backfill_finished", NOW - 300, number=3),
    Mark("worker_stopped", NOW - 250, subject="host:1"),
    Mark("rolled_back", NOW - 230, number=5),
]


def beats(*times: float) -> list[str]:
    return [line("worker_heartbeat", at) for at in times]


def shown(*lines: str, live: bool = True) -> list[Mark]:
    return folded(*lines).page_state(live=live).marks


def test_workers_backfills_and_rollbacks_are_marked_in_the_order_of_time() -> None:
    assert shown(*LIFE[1::2], *LIFE[-2::-2]) == MARKS


def test_a_time_without_a_heartbeat_is_one_mark_whichever_worker_was_heard() -> None:
    one = [NOW - 100 + 5 * number for number in range(5)]
    other = [NOW - 40 + 5 * number for number in range(9)]
    between = Mark("blind", NOW - 80, until=NOW - 40)
    assert shown(*beats(*one, *other)) == [between]
    assert shown(*beats(*other, *one[::-1])) == [between]
    assert shown(*beats(*one, NOW - 68, NOW - 54, *other)) == []


def test_the_last_heartbeat_begins_a_mark_that_has_no_end_yet() -> None:
    assert shown(*beats(NOW - 60)) == [Mark("blind", NOW - 60)]
    assert shown(*beats(NOW - 60), live=False) == []
    assert shown(*LIFE[:1]) == MARKS[:1]


def test_each_turn_of_the_phase_is_marked_once_when_it_was_whatever_is_heard_of_it() -> None:
    def said(at: float, epoch: int, phase: str, since: float, **more: object) -> str:
        return line("worker_heartbeat", NOW + at, epoch=epoch, phase=phase, phase_since=NOW + since, **more)

    heard = [
        said(-9, 0, "legacy_only", -500),
        said(-8, 4, "reads_moved", -8.5),
        said(-7, 4, "reads_moved", -8.5),
        said(-6, 5, "shadow_reads", -6.5, fell_back=True),
    ]
    turns = [
        Mark("phase_turned", NOW - 8.5, number=4),
        Mark("reads_fell_back", NOW - 6.5, number=3),
    ]
    assert shown(*heard) == shown(*heard[::-1]) == turns
    many = MOST_TURNS + 9
    marks = shown(*(said(-1, number + 1, "outbox", number - many) for number in range(many)))
    assert [mark.at for mark in marks] == [NOW - MOST_TURNS + number for number in range(MOST_TURNS)]


@pytest.mark.parametrize("phase", ["unheard_of", "", None])
def test_a_phase_that_is_none_is_not_shown(phase: str | None) -> None:
    beat = fields("worker_heartbeat") | {"epoch": 1, "phase": phase, "phase_since": NOW}
    page_state = folded(json.dumps(beat)).page_state(live=True)
    assert (page_state.marks, page_state.cutover, page_state.source.broken) == ([], None, 0)


def test_the_newest_are_kept_however_many_there_are() -> None:
    many = MOST_MARKS + 9
    marks = shown(*(line("worker_started", NOW - many + number) for number in range(many)))
    assert [mark.at for mark in marks] == [NOW - MOST_MARKS + number for number in range(MOST_MARKS)]
    spells = MOST_SPELLS + 9
    assert len(shown(*beats(*(NOW - 20 * number for number in range(spells))))) == MOST_SPELLS - 1


def test_each_step_counts_the_events_of_its_percentiles() -> None:
    series = folded(batch(NOW - 1, lags={3: 2, 9: 1}, applied=3), batch(NOW - 1, lags={5: 4}, applied=4))
    assert series.page_state(live=True).series["15m"].lag_count["live"] == [7, 0]
