"""Percentiles of what was timed."""

import statistics
from collections.abc import Sequence


def percentiles_ms(seconds: Sequence[float]) -> list[float]:
    return [cut * 1000 for cut in statistics.quantiles(seconds, n=100, method="inclusive")]


def p50_p95_p99_ms(seconds: Sequence[float]) -> tuple[float, float, float]:
    cuts = percentiles_ms(seconds)
    return cuts[49], cuts[94], cuts[98]
