"""Percentiles of what was timed."""

import statistics
from collections.abc import Sequence


def percentiles_ms(seconds: Sequence[float]) -> list[float]:
    """Return the 1st to 99th percentile, in milliseconds."""
    return [cut * 1000 for cut in statistics.quantiles(seconds, n=100, method="inclusive")]


def p50_p95_p99_ms(seconds: Sequence[float]) -> tuple[float, float, float]:
    """Return these three, in milliseconds."""
    cuts = percentiles_ms(seconds)
    return cuts[49], cuts[94], cuts[98]
