"""Files are read whole, once, in bounded memory, and followed through all that rotation does to them."""

import contextlib
import gzip
import os
import tracemalloc
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.dashboard.loglines import NOW, batch, line, text
from worker.dashboard.files import LogFileError, family
from worker.dashboard.log_state import LogState
from worker.dashboard.reading import Logs
from worker.dashboard.splitting import CHUNK, LONGEST_LINE


class Reading:
    """Logs that are read, and what was found so far."""

    def __init__(self, *paths: Path) -> None:
        self.state = LogState(lambda: NOW)
        self.logs = Logs(paths, self.state)
        self.source = self.state.source

    def read(self) -> "Reading":
        for _ in self.logs.read():
            pass
        return self

    def look(self) -> int:
        """Look again, and return how many events were applied in all."""
        self.logs.look()
        self.read()
        return self.applied()

    def end(self) -> "Reading":
        self.read()
        self.logs.close()
        return self

    def applied(self) -> int:
        return self.state.page_state(live=True).lanes[0].outcomes["applied"]


Read = Callable[..., Reading]


@pytest.fixture
def reading_of() -> Iterator[Read]:
    """Open logs; they are closed at the end."""
    with contextlib.ExitStack() as stack:

        def opened(*paths: Path) -> Reading:
            reading = Reading(*paths)
            stack.callback(reading.logs.close)
            return reading

        yield opened


def applied(*counts: int) -> bytes:
    return text(batch(applied=count) for count in counts)


@pytest.fixture
def log(tmp_path: Path) -> Path:
    return tmp_path / "worker.log"


def append(path: Path, content: bytes) -> None:
    with path.open("ab") as file:
        file.write(content)


def test_a_log_is_read_with_all_that_rotation_made_of_it_the_oldest_first(
    log: Path, reading_of: Read
) -> None:
    names = [".2", ".10.gz", "-20260131.gz", "-20260201", ".1", ""]
    for name in names:
        content = line("worker_started", worker=name).encode()
        Path(f"{log}{name}").write_bytes(gzip.compress(content) if name.endswith(".gz") else content)
    for other in (".1.bak", ".x", "2", ".1.gz.part"):
        Path(f"{log}{other}").write_bytes(b"no log of ours")
    listed = [member.path.name.removeprefix("worker.log") for member in family(log)]
    assert listed == ["-20260131.gz", "-20260201", ".10.gz", ".2", ".1", ""]
    reading = reading_of(log).end()
    assert (reading.source.files, reading.source.lines, reading.source.broken) == (6, 6, 0)
    assert reading.source.bytes_read == reading.source.bytes_total == sum(m.size for m in family(log))


def test_a_file_that_is_named_twice_or_is_another_s_rotated_one_is_read_once(
    log: Path, reading_of: Read
) -> None:
    log.write_bytes(applied(1))
    Path(f"{log}.1").write_bytes(applied(2))
    (log.parent / "link").symlink_to(log)
    reading = reading_of(Path(f"{log}.1"), log, log.parent / "link").end()
    assert reading.applied() == 3
    assert reading.look() == 3


def test_several_logs_make_one_picture(log: Path, reading_of: Read) -> None:
    other = log.parent / "other.log"
    log.write_bytes(applied(1))
    other.write_bytes(applied(2))
    assert reading_of(log, other).end().applied() == 3


def test_a_packed_file_is_known_by_its_content(log: Path, reading_of: Read) -> None:
    log.write_bytes(gzip.compress(applied(1)) + gzip.compress(applied(2)))
    assert reading_of(log).end().applied() == 3


def test_a_packed_file_that_is_damaged_is_read_as_far_as_it_goes(log: Path, reading_of: Read) -> None:
    packed = gzip.compress(applied(*range(2000)))
    damaged = bytearray(packed)
    damaged[len(packed) // 2] ^= 0xFF
    for content, lost in ((packed[:-2000], 2), (packed + b"rubbish", 1), (bytes(damaged), 10_000)):
        log.write_bytes(content)
        reading = reading_of(log).end()
        assert 1 <= reading.source.broken <= lost
        assert str(log) in (reading.source.broken_sample or "")
        assert reading.applied() > 0


def test_the_last_line_needs_no_newline_in_a_file_that_is_read_once(log: Path, reading_of: Read) -> None:
    log.write_bytes(applied(1, 2).rstrip(b"\n"))
    assert reading_of(log).end().applied() == 3
    log.write_bytes(applied(1, 2)[:-5])
    reading = reading_of(log).end()
    assert (reading.applied(), reading.source.broken) == (1, 1)


def test_a_line_without_its_newline_waits_for_its_rest(log: Path, reading_of: Read) -> None:
    whole = applied(1, 2)
    log.write_bytes(whole[:-5])
    reading = reading_of(log).read()
    assert (reading.applied(), reading.source.broken) == (1, 0)
    append(log, whole[-5:])
    assert (reading.look(), reading.source.broken, reading.source.lines) == (3, 0, 2)


def test_lines_appended_are_read(log: Path, reading_of: Read) -> None:
    log.write_bytes(applied(1))
    reading = reading_of(log).read()
    for count in (2, 3, 4):
        append(log, applied(1))
        assert reading.look() == count


def test_a_rotated_file_is_read_to_its_end_and_then_the_new_one(log: Path, reading_of: Read) -> None:
    log.write_bytes(applied(1))
    reading = reading_of(log).read()
    old = log.open("ab")
    log.rename(f"{log}.1")
    assert reading.look() == 1
    with old:
        old.write(applied(10)[:-3])
        old.flush()
        log.write_bytes(applied(100))
        assert reading.look() == 101
        old.write(applied(10)[-3:])  # another process has not noticed yet
        old.flush()
        assert reading.look() == 111
    append(log, applied(1000))
    assert (reading.look(), reading.source.broken, reading.source.files) == (1111, 0, 2)


def test_no_rotation_between_two_looks_is_missed_and_none_is_read_twice(log: Path, reading_of: Read) -> None:
    log.write_bytes(applied(1))
    reading = reading_of(log).read()
    expected = 1
    for round_ in range(1, 8):
        for _ in range(3):  # files that come and move on before anybody looks
            for number in range(4, 0, -1):
                if Path(f"{log}.{number}").exists():
                    Path(f"{log}.{number}").rename(f"{log}.{number + 1}")
            log.rename(f"{log}.1")
            log.write_bytes(applied(round_))
            expected += round_
        assert reading.look() == expected


def test_a_rotated_file_that_is_packed_later_is_not_read_again(log: Path, reading_of: Read) -> None:
    log.write_bytes(applied(1))
    reading = reading_of(log).read()
    Path(f"{log}.1.gz").write_bytes(gzip.compress(log.read_bytes()))
    log.unlink()
    log.write_bytes(applied(10))
    assert reading.look() == 11


def test_a_file_that_was_copied_and_emptied_begins_anew(log: Path, reading_of: Read) -> None:
    log.write_bytes(applied(1, 1, 1))
    reading = reading_of(log).read()
    Path(f"{log}.1").write_bytes(log.read_bytes())
    os.truncate(log, 0)
    assert reading.look() == 3
    append(log, applied(10))
    assert (reading.look(), reading.source.broken) == (13, 0)


def open_files() -> int:
    return sum(1 for _ in Path("/proc/self/fd").iterdir())


def test_what_is_open_does_not_grow_with_rotations(log: Path, reading_of: Read) -> None:
    log.write_bytes(applied(1))
    reading = reading_of(log).read()
    before = open_files()
    for _ in range(20):
        log.replace(f"{log}.1")
        log.write_bytes(applied(1))
        reading.look()
    assert open_files() <= before + 2
    assert reading.applied() == 21


@pytest.mark.parametrize("size", [LONGEST_LINE + 1, LONGEST_LINE + CHUNK - 7, 5 * LONGEST_LINE])
def test_a_line_that_is_too_long_is_broken_and_the_next_one_is_read(
    log: Path, reading_of: Read, size: int
) -> None:
    for end, broken in ((b"", 1), (b"y" * size, 2)):
        log.write_bytes(applied(1) + b"x" * size + b"\n" + applied(2) + end)
        reading = reading_of(log).end()
        found = (reading.applied(), reading.source.lines, reading.source.broken)
        assert found == (3, 2 + broken, broken)


def test_a_line_as_long_as_may_be_is_read(log: Path, reading_of: Read) -> None:
    padded = batch(applied=1)[:-1]
    log.write_bytes(
        applied(2) + f"{padded}{' ' * (LONGEST_LINE - len(padded) - 1)}}}\n".encode() + applied(4)
    )
    assert reading_of(log).end().applied() == 7


def test_lines_of_any_length_are_cut_out_of_the_chunks_whole(log: Path, reading_of: Read) -> None:
    paddings = [*range(0, 3000, 7), CHUNK - 600, CHUNK - 1, CHUNK, CHUNK + 1]
    log.write_bytes(b"".join(applied(1)[:-1] + b" " * padding + b"\n" for padding in paddings))
    reading = reading_of(log).end()
    assert (reading.applied(), reading.source.broken) == (len(paddings), 0)


def test_bytes_that_are_no_text_break_only_their_line(log: Path, reading_of: Read) -> None:
    log.write_bytes(
        applied(1) + b"\xff\xfe\x00\n" + applied(2) + b"\xc3\n\xbc\n" + b"\x00" * 100 + b"\n" + applied(4)
    )
    reading = reading_of(log).end()
    assert (reading.applied(), reading.source.broken, reading.source.lines) == (7, 4, 7)


def test_a_line_of_ours_with_a_byte_that_is_no_text_is_broken(log: Path, reading_of: Read) -> None:
    foreign = applied(4).replace(b"doorbell", "Türklingel".encode())
    log.write_bytes(applied(1).replace(b"doorbell", b"door\xffbell") + applied(2) + foreign)
    reading = reading_of(log).end()
    assert (reading.applied(), reading.source.broken) == (6, 1)
    assert "door\N{REPLACEMENT CHARACTER}bell" in (reading.source.broken_sample or "")


def test_memory_does_not_grow_with_a_line(log: Path, reading_of: Read) -> None:
    with log.open("wb") as file:
        for _ in range(64):
            file.write(b"x" * LONGEST_LINE)
    reading = reading_of(log)
    tracemalloc.start()
    reading.end()
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 6 * LONGEST_LINE
    assert (reading.source.lines, reading.source.broken) == (1, 1)


def test_what_is_no_readable_file_is_refused_with_what_to_do(log: Path, reading_of: Read) -> None:
    with pytest.raises(LogFileError, match="There is no file"):
        reading_of(log)
    with pytest.raises(LogFileError, match="is a directory"):
        reading_of(log.parent)


def test_an_empty_log_is_a_log(log: Path, reading_of: Read) -> None:
    log.touch()
    reading = reading_of(log).read()
    append(log, applied(1))
    assert reading.look() == 1
