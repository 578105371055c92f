"""The counters of our own, held against the client library's."""

import random
import threading

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client import Histogram as TheirHistogram

from shared.metrics import PREFIX, Histogram, Tally, open_registry
from tests.metrics.run import Exposition

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
    tally = Tally("x", "X.", lane=("live", "bulk"), outcome=("good", "bad"))
    tally.add("live", "bad", count=3)
    exposed = shown(open_registry(tally))
    counted = {
        (lane, outcome): exposed.value(f"{PREFIX}x_total", lane=lane, outcome=outcome)
        for lane in ("live", "bulk")
        for outcome in ("good", "bad")
    }
    assert counted == {("live", "good"): 0, ("live", "bad"): 3, ("bulk", "good"): 0, ("bulk", "bad"): 0}


def test_a_scrape_beside_the_counting_never_sees_half_of_what_was_added_together() -> None:
    histogram = Histogram("x_seconds", "X.", BOUNDS, lane=("live",))
    registry, done = open_registry(histogram), threading.Event()
    torn: list[Exposition] = []

    def scrape() -> None:
        while not done.is_set():
            exposed = shown(registry)
            count = exposed.value(f"{PREFIX}x_seconds_count", lane="live") or 0
            total = exposed.value(f"{PREFIX}x_seconds_sum", lane="live") or 0
            if count % 100 or total != count:
                torn.append(exposed)

    thread = threading.Thread(target=scrape)
    thread.start()
    for _ in range(3_000):
        histogram.observe_all([1.0] * 100, "live")
    done.set()
    thread.join()
    assert torn == []
