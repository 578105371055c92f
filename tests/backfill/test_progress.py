import pytest

from worker.backfill.speed import Speed, eta_seconds
from worker.backfill.terminal import as_time


def test_the_speed_is_that_of_the_last_ten_seconds(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 100.0
    monkeypatch.setattr("worker.backfill.speed.time.monotonic", lambda: now)
    speed = Speed()
    assert speed.sample(0) is None
    now = 105.0
    assert speed.sample(500) == 100
    for second in range(1, 31):  # slower from here on
        now = 105.0 + second
        rows_a_second = speed.sample(500 + 10 * second)
    assert rows_a_second == 10


def test_a_run_that_stands_still_has_no_speed_and_no_end(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 100.0
    monkeypatch.setattr("worker.backfill.speed.time.monotonic", lambda: now)
    speed = Speed()
    speed.sample(500)
    now = 120.0
    assert speed.sample(500) == 0
    assert eta_seconds(1000, 500, 0) is None
    assert eta_seconds(1000, 500, None) is None


@pytest.mark.parametrize(
    ("planned", "processed", "seconds"), [(1000, 500, 50), (1000, 1000, 0), (1000, 1200, 0)]
)
def test_the_time_left_is_never_below_nothing(planned: int, processed: int, seconds: float) -> None:
    assert eta_seconds(planned, processed, 10) == seconds


@pytest.mark.parametrize(
    ("seconds", "shown"), [(None, "--:--"), (0, "0:00"), (59.6, "1:00"), (61, "1:01"), (3661, "1:01:01")]
)
def test_times_are_shown_as_on_a_clock(seconds: float | None, shown: str) -> None:
    assert as_time(seconds) == shown
