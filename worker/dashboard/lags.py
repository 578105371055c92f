"""Lags as counts by size, which add up over batches and workers, and their percentiles."""

import re
from typing import Any

from worker.dashboard.log_line import LARGEST, BrokenLineError

Counts = dict[int, int]

BASE = 1.1  # of the contract's `lag_ms_counts`
BUCKETS = range(-200, 401)  # 1.1^400 ms are a million years
BUCKET_KEY = re.compile(r"-?[0-9]{1,3}")
PERCENTILES = {"p50": 0.50, "p95": 0.95, "p99": 0.99}


def counts_of(written: dict[str, Any]) -> Counts:
    """Read `lag_ms_counts`, lags by the i of (1.1^(i-1), 1.1^i] ms; raise BrokenLineError if it is none."""
    counts = {}
    for key, count in written.items():
        if BUCKET_KEY.fullmatch(key) is None or type(count) is not int or not 0 <= count < LARGEST:
            raise BrokenLineError
        if (bucket := int(key)) not in BUCKETS:
            raise BrokenLineError
        counts[bucket] = count
    return counts


def add(counts: Counts, more: Counts) -> None:
    for bucket, count in more.items():
        counts[bucket] = counts.get(bucket, 0) + count


def percentiles(counts: Counts) -> dict[str, float | None]:
    """Return p50, p95 and p99 in ms, each the geometric middle of its bucket: within 5 % of the true one."""
    total = sum(counts.values())
    if not total:
        return dict.fromkeys(PERCENTILES)
    found: dict[str, float | None] = {}
    wanted = iter(PERCENTILES.items())
    name, share = next(wanted)
    below = 0
    for bucket in sorted(counts):
        below += counts[bucket]
        while below >= share * total:
            found[name] = round(BASE ** (bucket - 0.5), 3)
            if (following := next(wanted, None)) is None:
                return found
            name, share = following
    return found
