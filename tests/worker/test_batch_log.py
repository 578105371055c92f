"""The lines of a batch: what they count, and how late they say the events were."""

import math
from collections import Counter

import asyncpg
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy.ext.asyncio import AsyncEngine
from structlog.testing import capture_logs
from structlog.typing import EventDict

from shared.events import Source
from tests.draining import drain
from tests.legacy_rows import set_collection
from tests.worker.events import append_raw
from worker.telemetry.log import SAMPLED_ONE_OF, lag_step, percentile


async def lines_of(engine: AsyncEngine) -> list[EventDict]:
    with capture_logs() as lines:
        await drain(engine, wake="sweep")
    return lines


async def test_a_batch_has_a_line_for_each_lane_and_an_outcome_for_each_event(
    engine: AsyncEngine, sql: asyncpg.Connection
) -> None:
    await set_collection(engine, "live", "older")
    await set_collection(engine, "live", "newer")
    await set_collection(engine, "repaired", source=Source.REPAIR)
    await append_raw(sql, "poison", created_at="not a time")
    lines = await lines_of(engine)
    batches = {line["lane"]: line for line in lines if line["event"] == "batch_settled"}
    assert batches.keys() == {"live", "repair"}
    live, repair = batches["live"], batches["repair"]
    assert (live["claimed"], live["applied"], live["conflated"], live["dead"]) == (3, 1, 1, 1)
    assert (repair["claimed"], repair["applied"]) == (1, 1)
    assert {line["wake"] for line in batches.values()} == {"sweep"}
    assert live["duration_ms"] == repair["duration_ms"] > 0


async def test_lags_are_those_of_the_events_lines_and_can_be_added_up(engine: AsyncEngine) -> None:
    for number in range(20):
        await set_collection(engine, f"c{number}")
    lines = await lines_of(engine)
    lags = sorted(line["lag_ms"] for line in lines if line["event"] == "event_settled")
    [batch] = [line for line in lines if line["event"] == "batch_settled"]
    assert len(lags) == 20
    assert (batch["lag_ms_p50"], batch["lag_ms_p95"]) == (lags[9], lags[18])
    assert (batch["lag_ms_p99"], batch["lag_ms_max"]) == (lags[19], lags[19])
    assert 0 < batch["oldest_pending_ms"] <= lags[19]
    assert batch["lag_ms_counts"] == {
        str(step): count for step, count in Counter(lag_step(lag) for lag in lags).items()
    }


async def test_of_what_a_backfill_applied_one_event_in_a_thousand_has_a_line(
    engine: AsyncEngine, sql: asyncpg.Connection
) -> None:
    await sql.execute(f"ALTER SEQUENCE outbox_events_id_seq RESTART WITH {SAMPLED_ONE_OF - 1}")
    for name in ("before", "chosen", "after"):
        await set_collection(engine, name, source=Source.BACKFILL)
    lines = await lines_of(engine)
    [settled] = [line for line in lines if line["event"] == "event_settled"]
    assert (settled["collection_id"], settled["event_id"]) == ("chosen", SAMPLED_ONE_OF)
    assert settled["one_of"] == SAMPLED_ONE_OF


@given(lag=st.floats(0.0011, 1e9))
def test_a_lag_is_within_the_bounds_of_its_step(lag: float) -> None:
    step = lag_step(lag)
    assert 1.1 ** (step - 1) * (1 - 1e-9) <= lag <= 1.1**step * (1 + 1e-9)


@given(
    ordered=st.lists(st.floats(0, 1e6), min_size=1).map(sorted), percent=st.sampled_from([50, 95, 99, 100])
)
def test_a_percentile_is_the_least_value_that_so_many_do_not_exceed(
    ordered: list[float], percent: int
) -> None:
    found = percentile(ordered, percent)
    assert found is not None
    enough = math.ceil(len(ordered) * percent / 100)
    assert sum(value <= found + 0.0005 for value in ordered) >= enough
    assert sum(value < found - 0.0005 for value in ordered) < enough


@pytest.mark.parametrize("percent", [50, 100])
def test_of_nothing_there_is_no_percentile(percent: int) -> None:
    assert percentile([], percent) is None
