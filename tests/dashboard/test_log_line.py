"""What counts as a line of ours, and that nothing a log holds can stop the reading."""

import io
import json
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from rich.console import Console

from shared.logs.contract import CONTRACT
from shared.logs.declaring import LOG_VERSION
from tests.dashboard.loglines import NOW, fields, folded, line, stamp
from worker.dashboard.log_line import Stamps
from worker.dashboard.log_state import Clock, LogState
from worker.dashboard.rendering import to_json
from worker.dashboard.terminal import show


@pytest.mark.parametrize("event", CONTRACT)
def test_every_event_of_the_contract_is_read_as_one_line_of_ours(event: str) -> None:
    source = folded(line(event)).source
    assert (source.lines, source.broken, source.unknown, source.newer_schema) == (1, 0, 0, 0)
    assert source.first_at == source.last_at == NOW


@pytest.mark.parametrize(
    "broken",
    [
        "no JSON at all",
        '{"event": "redis_restored"',
        "[1, 2]",
        "null",
        '"text"',
        "{}",
        line("redis_restored") + line("redis_restored"),
        json.dumps({**fields("redis_restored"), "event": ["redis_restored"]}),
        json.dumps({**fields("redis_restored"), "timestamp": None}),
        json.dumps({**fields("redis_restored"), "timestamp": 1e9}),
        json.dumps({**fields("redis_restored"), "timestamp": "yesterday"}),
        json.dumps({**fields("redis_restored"), "timestamp": "2026-03-01T12:00:00"}),
        json.dumps({**fields("redis_restored"), "timestamp": "0001-01-01T00:00:00+14:00"}),
        json.dumps({**fields("redis_restored"), "timestamp": "1999-01-01T00:00:00Z"}),
        json.dumps({**fields("redis_restored"), "timestamp": "2019-12-31T23:59:59Z"}),
        json.dumps({**fields("redis_restored"), "more": float("nan")}),
        json.dumps({**fields("redis_restored"), "more": float("-inf")}),
        json.dumps({**fields("redis_restored"), "timestamp": stamp(NOW + 2 * 86_400)}),
        json.dumps({**fields("batch_settled"), "applied": "3"}),
        json.dumps({**fields("batch_settled"), "applied": True}),
        json.dumps({**fields("batch_settled"), "applied": -1}),
        json.dumps({**fields("batch_settled"), "applied": 10**30}),
        json.dumps({**fields("batch_settled"), "lane": "fast"}),
        json.dumps({**fields("batch_settled"), "lag_ms_counts": {"4": None}}),
        json.dumps({**fields("batch_settled"), "lag_ms_counts": {"x": 1}}),
        json.dumps({**fields("batch_settled"), "lag_ms_counts": {"9999999": 1}}),
        json.dumps({**fields("batch_settled"), "lag_ms_counts": {"٣": 1}}),
        json.dumps({**fields("batch_settled"), "lag_ms_max": float("nan")}),
        json.dumps({**fields("batch_settled"), "lag_ms_max": float("inf")}),
        line("batch_settled").replace('"duration_ms": 0.0', '"duration_ms": 1e999'),
        line("batch_settled").replace('"applied": 0', f'"applied": {"9" * 5000}'),
        json.dumps({**fields("audit_finding"), "differs": [1]}),
        json.dumps({**fields("dead_letters_superseded"), "event_ids": ["1"]}),
        "[" * 100_000,
        '{"a":' * 100_000,
    ],
)
def test_what_is_no_line_of_ours_is_counted_and_shown(broken: str) -> None:
    state = folded(line("redis_restored"), broken, line("redis_restored"))
    assert (state.source.lines, state.source.broken) == (3, 1)
    assert state.source.broken_sample is not None
    assert broken.startswith(state.source.broken_sample[:150])
    assert len(state.source.broken_sample) <= 200
    assert state.page_state(live=False).lanes[0].batches == 0


def test_blank_lines_are_no_lines() -> None:
    state = folded("", " \r", line("redis_restored"), "\t")
    assert (state.source.lines, state.source.broken) == (1, 0)


def test_a_line_may_end_as_on_windows() -> None:
    state = folded(line("redis_restored") + "\r")
    assert (state.source.lines, state.source.broken) == (1, 0)


def test_unknown_events_are_counted_apart_and_their_warnings_shown() -> None:
    unheard = {**fields("redis_lost"), "event": "moon_lost", "phase": {"of": [1, 2]}}
    state = folded(json.dumps(unheard), json.dumps({**unheard, "level": "info"}))
    assert (state.source.lines, state.source.broken, state.source.unknown) == (2, 0, 2)
    [trouble] = state.page_state(live=False).troubles
    assert (trouble.event, trouble.count, trouble.fields["phase"]) == ("moon_lost", 1, '{"of": [1, 2]}')


def test_a_newer_schema_is_read_as_far_as_it_goes() -> None:
    newer = {"schema_version": LOG_VERSION + 1}
    readable = json.dumps({**fields("batch_settled", applied=3, claimed=3), **newer, "more": 1})
    unreadable = json.dumps({**fields("batch_settled"), **newer, "applied": {"sum": 3}})
    state = folded(readable, unreadable)
    source = state.source
    assert (source.lines, source.broken, source.unknown, source.newer_schema) == (2, 0, 0, 2)
    assert state.page_state(live=False).lanes[0].outcomes["applied"] == 3


def test_a_line_of_an_older_version_that_is_of_no_use_is_unknown() -> None:
    old = fields("batch_settled")
    del old["lane"]
    source = folded(json.dumps({**old, "schema_version": 1})).source
    assert (source.lines, source.broken, source.unknown, source.newer_schema) == (1, 0, 1, 0)


@given(st.floats(min_value=NOW - 1e7, max_value=NOW + 80_000))
def test_timestamps_are_read_alike_with_and_without_one_of_their_second_before(at: float) -> None:
    used, fresh = Stamps(), Stamps()
    used.seconds(stamp(int(at)))
    assert used.seconds(stamp(at)) == pytest.approx(fresh.seconds(stamp(at)), abs=1e-6)


JSON_VALUES: st.SearchStrategy[Any] = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(st.characters(exclude_categories=()), max_size=20)
    | st.sampled_from([2**63, -(2**63), 10**400, 1e308, "up", "live", "dead", "drift", "warning", -1, 0, 1]),
    lambda values: st.lists(values, max_size=4) | st.dictionaries(st.text(max_size=5), values, max_size=4),
    max_leaves=8,
)


@st.composite
def mutated(draw: st.DrawFn) -> str:
    """Draw a line of the contract of which some fields were changed, lost, doubled or cut."""
    event = draw(st.sampled_from(sorted(CONTRACT)))
    line = fields(event, NOW - draw(st.floats(0, 1e6)))
    if event == "event_settled" and draw(st.booleans()):
        line["outcome"] = "dead"
    for name in draw(st.lists(st.sampled_from(sorted(line)), max_size=4)):
        if draw(st.booleans()):
            line[name] = draw(JSON_VALUES)
        else:
            line.pop(name, None)
    written = json.dumps(line, ensure_ascii=draw(st.booleans()))
    match draw(st.integers(0, 9)):
        case 0:
            return written[: draw(st.integers(0, len(written)))]
        case 1:
            return written.replace("{", '{"event": "doubled", "event": 3, ', 1)
        case 2:
            place = draw(st.integers(0, len(written)))
            return written[:place] + draw(st.text(max_size=3)) + written[place:]
    return written


@settings(max_examples=120, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.lists(mutated() | st.text(st.characters(exclude_categories=()), max_size=40), max_size=30))
def test_no_log_stops_the_reading_or_the_page(lines: list[str]) -> None:
    state = LogState(lambda: NOW)
    state.fold(lines, Clock())
    assert state.source.lines == sum(bool(line.strip()) for line in lines)
    for live in (False, True):
        page_state = state.page_state(live=live)
        written = to_json(page_state)
        assert written.isascii()
        json.loads(written, parse_constant=pytest.fail)
        with io.TextIOWrapper(io.BytesIO(), encoding="utf-8") as terminal:  # refuses lone surrogates
            show(Console(file=terminal), page_state)
