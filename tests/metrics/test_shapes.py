"""The counters of our own, held against the client library's."""

import random
import sys
import threading
from collections.abc import Iterator

import pytest
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client import Histogram as TheirHistogram

from shared.metrics import PREFIX, Counter, Histogram, open_registry
from tests.metrics.run import Exposition


@pytest.fixture
def often() -> Iterator[None]:
    """Let threads take turns as often as Python can."""
    usual = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    yield
    sys.setswitchinterval(usual)


BOUNDS = (0.001, 0.01, 0.1, 1, 10)


def shown(registry: CollectorRegistry) -> Exposition:
    return Exposition.of(generate_latest(registry).decode())


def test_a_histogram_counts_as_the_client_librarys_does_one_by_one_or_many_at_once() -> None:
    rng = random.Random(5)  # noqa: S311 - repeatable
    values = [*BOUNDS, 0.0, *(10 ** rng.uniform(-4, 2) for _ in range(500))]
    theirs = CollectorRegistry()
    reference = TheirHistogram(f"{PREFIX}x_seconds", "X.", ["lane"], registry=theirs, buckets=BOUNDS)
    ours, singly = (
        Histogram("x_seconds", "X.", BOUNDS, lane=()),
        Histogram("x_seconds", "X.", BOUNDS, lane=()),
    )
    for value in values:
        reference.labels("live").observe(value)
        singly.observe(value, "live")
    for start in range(0, len(values), 100):
        ours.observe_all(values[start : start + 100], "live")
    expected = samples(shown(theirs))
    for histogram in (ours, singly):
        assert samples(shown(open_registry(histogram))) == expected


def samples(exposed: Exposition) -> dict[tuple[str, str | None], float]:
    family = exposed.families[f"{PREFIX}x_seconds"]
    return {(sample.name, sample.labels.get("le")): round(sample.value, 6) for sample in family.samples}


def test_what_has_not_happened_yet_is_shown_as_zero() -> None:
    counter = Counter("x", "X.", lane=("live", "bulk"), outcome=("good", "bad"))
    counter.add("live", "bad", count=3)
    exposed = shown(open_registry(counter))
    counted = {
        (lane, outcome): exposed.value(f"{PREFIX}x_total", lane=lane, outcome=outcome)
        for lane in ("live", "bulk")
        for outcome in ("good", "bad")
    }
    assert counted == {("live", "good"): 0, ("live", "bad"): 3, ("bulk", "good"): 0, ("bulk", "bad"): 0}


def test_a_scrape_beside_the_counting_never_sees_half_of_what_was_added_together(
    often: None,
) -> None:
    del often
    histogram = Histogram("x_seconds", "X.", BOUNDS, lane=("live",))
    torn: list[tuple[float, float]] = []
    done = threading.Event()

    def scrape() -> None:
        for _ in range(3_000):
            (family,) = histogram.collect()
            value = {sample.name.rpartition("_")[2]: sample.value for sample in family.samples}
            if value["count"] % 100 or value["sum"] != value["count"]:
                torn.append((value["count"], value["sum"]))
        done.set()

    thread = threading.Thread(target=scrape)
    thread.start()
    while not done.is_set():
        histogram.observe_all([1.0] * 100, "live")
    thread.join()
    assert torn == []
