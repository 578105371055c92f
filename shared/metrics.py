"""Metrics of one process: plain numbers that its own thread keeps, made into Prometheus's form at a scrape.

The client library's own counters lock for each number, take the values of a histogram singly, and show a
time of creation beside each series; a batch of a thousand events has better to do.
"""

from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import accumulate, product

from prometheus_client import CollectorRegistry, ProcessCollector
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily
from prometheus_client.registry import Collector
from prometheus_client.utils import floatToGoString

PREFIX = "collection_sync_"

LabelValues = tuple[str, ...]


def open_registry(*collectors: Collector) -> CollectorRegistry:
    """Make a registry of this process, which shows these in their order, and last the process itself."""
    registry = CollectorRegistry(auto_describe=True)
    for collector in collectors:
        registry.register(collector)
    ProcessCollector(registry=registry)
    return registry


def gauge(name: str, meaning: str, value: float | None) -> GaugeMetricFamily:
    """Make a gauge of a number that is known now; with None its name is shown, and no value."""
    family = GaugeMetricFamily(PREFIX + name, meaning)
    if value is not None:
        family.add_metric([], value)
    return family


def gauges(name: str, meaning: str, label: str, values: Mapping[str, float | None]) -> GaugeMetricFamily:
    """Make a gauge with a number for each value of the label; those that are None are left out."""
    family = GaugeMetricFamily(PREFIX + name, meaning, labels=[label])
    for label_value, value in values.items():
        if value is not None:
            family.add_metric([label_value], value)
    return family


class Counter(Collector):
    """A counter for each combination of its labels. One thread adds, any may read.

    The name comes without prefix and `_total`, each label with the values to show from zero on.
    """

    def __init__(self, name: str, meaning: str, **labels: Iterable[str]) -> None:
        self._name, self._meaning, self._labels = PREFIX + name, meaning, tuple(labels)
        self._counts: dict[LabelValues, float] = dict.fromkeys(product(*labels.values()), 0)

    def add(self, *labels: str, count: float = 1) -> None:
        """Add to the counter of these label values, which must be out of a bounded set: never an id."""
        self._counts[labels] = self._counts.get(labels, 0) + count

    def collect(self) -> Iterator[CounterMetricFamily]:
        family = CounterMetricFamily(self._name, self._meaning, labels=self._labels)
        for labels, count in self._counts.copy().items():
            family.add_metric(labels, count)
        yield family


class Histogram(Collector):
    """How many values were at most as large as each bound, for each combination of labels.

    One thread adds, any may read: it never sees half of what was added together. Bounds ascend.
    """

    def __init__(self, name: str, meaning: str, bounds: Sequence[float], **labels: Iterable[str]) -> None:
        self._name, self._meaning, self._labels = PREFIX + name, meaning, tuple(labels)
        self._bounds = tuple(bounds)
        self._titles = [*map(floatToGoString, self._bounds), "+Inf"]
        self._nothing = ((0,) * len(self._titles), 0.0)
        self._seen = dict.fromkeys(product(*labels.values()), self._nothing)

    def observe(self, value: float, *labels: str) -> None:
        """Add one value to those of these label values, which must be out of a bounded set."""
        counts, total = self._seen.get(labels, self._nothing)
        at = bisect_left(self._bounds, value)
        self._seen[labels] = (*counts[:at], counts[at] + 1, *counts[at + 1 :]), total + value

    def observe_all(self, values: Sequence[float], *labels: str) -> None:
        """Add many at once, for less than adding each."""
        ordered = sorted(values)
        counts, total = self._seen.get(labels, self._nothing)
        upto = [*(bisect_right(ordered, bound) for bound in self._bounds), len(ordered)]
        added = (count + more - less for count, more, less in zip(counts, upto, [0, *upto], strict=False))
        self._seen[labels] = tuple(added), total + sum(ordered)

    def collect(self) -> Iterator[HistogramMetricFamily]:
        """Yield the values so far, as Prometheus wants them: each bound counts those below it too."""
        family = HistogramMetricFamily(self._name, self._meaning, labels=self._labels)
        for labels, (counts, total) in self._seen.copy().items():
            family.add_metric(labels, list(zip(self._titles, accumulate(counts), strict=True)), total)
        yield family
