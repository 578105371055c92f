"""A long log, half of it corrupt, opens in bounded memory, and every line is counted."""

from pathlib import Path

from benchmarks.cases.dashboard import MOST_MIB
from benchmarks.long_log import open_log, write

MEGABYTE = 1_000_000


def test_memory_does_not_grow_with_the_log_and_the_counts_are_exact(tmp_path: Path) -> None:
    peaks = []
    for megabytes in (2, 20):
        log, page = tmp_path / f"{megabytes}.log", tmp_path / "page.html"
        written = write(log, megabytes * MEGABYTE, corrupt=0.5)
        opened = open_log(log, page)
        assert (opened.result["lines"], opened.result["broken"]) == (written.lines, written.corrupt)
        assert 0.4 < written.corrupt / written.lines < 0.6
        assert f'"broken":{written.corrupt},' in page.read_text(encoding="utf-8")
        peaks.append(opened.peak_mib)
    assert peaks[1] < peaks[0] + 30
    assert peaks[1] < MOST_MIB / 2
