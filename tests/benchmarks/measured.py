"""What a case may have measured: figures beside others and beside targets."""

from benchmarks.figures import Beside, Figure, Measured

MET = Figure("bare <SQL>", "rows/s", [100.0, 200.0, 400.0], at_least=150)
MISSED = Figure("ours & theirs", "rows/s", [90.0, 20.0, 360.0], [Beside(MET.name, at_least=0.95)])
APART = Figure("p99", "ms", [3.25], at_most=15)
GROWING = [Figure(f"log, {rows:,} rows", "B/row", [2.0 * rows], curve="log", rows=rows) for rows in (10, 100)]


def measured(*figures: Figure) -> Measured:
    return Measured("drain", figures or (MET, MISSED, APART), {"rows": 1_000}, 12.3)
