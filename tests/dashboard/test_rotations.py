"""A log is read with all that rotation made of it, by any name and packing; what is not read is named."""

import bz2
import errno
import gzip
import lzma
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.dashboard.loglines import NOW, batch, text
from worker.dashboard.files import LogFileError, belongs_to
from worker.dashboard.log_state import Clock, LogState
from worker.dashboard.page_state import LogSource
from worker.dashboard.reading import Logs, Tail

PACKERS: dict[str, Callable[[bytes], bytes]] = {
    ".gz": gzip.compress,
    ".bz2": bz2.compress,
    ".xz": lzma.compress,
}
FOREIGN = [("-2026-01-31.lz4", b"\x04\x22\x4d\x18 rest", "lz4"), (".2", b"PK\x03\x04 rest", "zip")]
if sys.version_info < (3, 14):
    FOREIGN.append((".1.zst", b"\x28\xb5\x2f\xfd rest", "zstd"))
ROTATED = [
    "worker.log.1", "worker.log.0", "worker.log.12", "worker.log.old",
    "worker.log-20260131", "worker.log-2026-01-31", "worker.log.2026-01-31", "worker.log.2026-01-31_12-30-00",
    "worker.log-20260131-1769860000", "worker.log-2026013112", "worker.log.2026-01-31T12:30:00Z",
    "worker.log_2026-01-31", "worker.log-2026-01-31.1", "worker.log@1769860000",
    "worker-20260131.log", "worker-2026-01-31.log", "worker.2026-01-31_12-00-00_000000.log", "worker.1.log",
    "worker-1769860000.log",
]  # fmt: skip
OTHERS = ["worker2.log", "worker-2.log", "worker-x.log", "api.log", "worker.log2", "xworker.log.1"]
UNKNOWN = [
    "worker.log-2",
    "worker.log_3.gz",
    "worker.log.bak",
    "worker.log~",
    "worker.log.1.bak",
    "worker.log-yesterday",
]


def read(*paths: Path) -> tuple[int, LogSource]:
    """Return how many events were applied by all that was read, and of what it was made."""
    state = LogState(lambda: NOW)
    logs = Logs(paths, state)
    for _ in logs.read():
        pass
    logs.close()
    return state.page_state(live=True).lanes[0].outcomes["applied"], state.source


def applied(count: int) -> bytes:
    return text([batch(applied=count)])


@pytest.fixture
def log(tmp_path: Path) -> Path:
    path = tmp_path / "worker.log"
    path.write_bytes(applied(1))
    return path


@pytest.mark.parametrize("packing", ["", *PACKERS])
def test_every_name_that_rotation_gives_is_read(log: Path, packing: str) -> None:
    for name in ROTATED:
        (log.parent / f"{name}{packing}").write_bytes(PACKERS.get(packing, bytes)(applied(10)))
        assert belongs_to(log.parent / f"{name}{packing}", log)
    found, source = read(log)
    assert (found, source.broken, source.unread) == (1 + 10 * len(ROTATED), 0, [])


def test_another_log_is_none_of_ours_and_what_may_be_a_part_is_named(log: Path) -> None:
    for name in (*OTHERS, *UNKNOWN):
        (log.parent / name).write_bytes(applied(10))
        assert not belongs_to(log.parent / name, log)
    found, source = read(log)
    assert found == 1
    assert [what.partition(": ")[0] for what in source.unread] == sorted(
        str(log.parent / name) for name in UNKNOWN
    )


def test_what_python_cannot_unpack_is_named_and_refused_where_it_was_asked_for(log: Path) -> None:
    for name, content, packing in FOREIGN:
        part = Path(f"{log}{name}")
        part.write_bytes(content)
        found, source = read(log)
        assert (found, source.broken) == (1, 0)
        assert source.unread == [f"{part}: packed with {packing}; unpack it first"]
        with pytest.raises(LogFileError, match=f"packed with {packing}"):
            read(part)
        part.unlink()


def test_a_part_that_may_not_be_read_is_named(log: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    part = Path(f"{log}.1")
    part.write_bytes(applied(10))

    def opened(path: Path, state: LogState, clock: Clock) -> Tail:  # root may read whatever a mode forbids
        if path == part:
            raise PermissionError(errno.EACCES, "Permission denied")
        return Tail(path, state, clock)

    monkeypatch.setattr("worker.dashboard.reading.Tail", opened)
    found, source = read(log)
    assert (found, source.unread) == (1, [f"{part}: Permission denied"])


def test_a_directory_that_may_not_be_read_is_named(log: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(path: Path) -> None:  # root may read whatever a mode forbids
        raise PermissionError(errno.EACCES, "Permission denied", str(path))

    monkeypatch.setattr("worker.dashboard.files.Path.iterdir", refuse)
    found, source = read(log)
    assert found == 1
    assert source.unread == [f"{log.parent}: Permission denied; what rotation made of worker.log is not seen"]


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16-le", "utf-16-be"])
def test_a_byte_order_mark_is_understood(log: Path, encoding: str) -> None:
    whole = "".join(("" if encoding == "utf-8-sig" else "\ufeff", (applied(1) + applied(2)).decode()))
    content = whole.encode(encoding)
    for end in range(4):
        log.write_bytes(content[:end])
        state = LogState(lambda: NOW)
        logs = Logs([log], state)
        for _ in logs.read():
            pass
        log.write_bytes(content)
        for _ in logs.read():
            pass
        logs.close()
        found = state.page_state(live=True).lanes[0].outcomes["applied"]
        assert (found, state.source.lines, state.source.broken) == (3, 2, 0)


def test_files_with_marks_that_were_put_together_are_understood(log: Path) -> None:
    log.write_bytes(b"\xef\xbb\xbf" + applied(1) + b"\xef\xbb\xbf" + applied(2))
    found, source = read(log)
    assert (found, source.lines, source.broken) == (3, 2, 0)
