"""The log file while it grows, is moved by others, and while the disk is full."""

import contextlib
import fcntl
import json
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest

from shared.logs import file as log_file
from tests.log_lines import lines_of
from tests.processes import HANG_SECONDS
from tests.shared.scripts import run, start

# A limit of the process fails writes as a full disk does, and can be lifted.
FILL_UP = """
log.info("fits")
hard = resource.getrlimit(resource.RLIMIT_FSIZE)[1]
resource.setrlimit(resource.RLIMIT_FSIZE, (file.stat().st_size + {room}, hard))
for number in range(1, 4):
    log.info("written", number=number)
resource.setrlimit(resource.RLIMIT_FSIZE, (hard, hard))
log.info("fits again")
log.info("fits too")
"""


def test_a_full_disk_is_reported_once_and_costs_no_line_of_stdout() -> None:
    printed = run("for number in range(3): log.info('written', number=number)", Path("/dev/full"))
    assert [line["event"] for line in printed] == ["log_file_failed", "written", "written", "written"]
    assert printed[0]["error"] == "ENOSPC"


def test_when_there_is_space_again_the_file_goes_on_and_says_how_many_lines_it_lacks(tmp_path: Path) -> None:
    printed = run(FILL_UP.format(room=0), file := tmp_path / "log")
    missing = [line for line in printed if line not in lines_of(file)]
    assert [line["event"] for line in missing] == ["log_file_failed", "written", "written", "written"]
    assert [line["event"] for line in lines_of(file)] == [
        "fits", "fits again", "log_file_restored", "fits too",
    ]  # fmt: skip
    assert lines_of(file)[2]["lost"] == len(missing)


def test_a_line_that_the_end_of_the_disk_cut_short_is_completed(tmp_path: Path) -> None:
    run(FILL_UP.format(room=30), file := tmp_path / "log")
    assert [line.get("number") for line in lines_of(file)[:3]] == [None, 1, None]


def test_a_line_that_a_process_left_unfinished_does_not_spoil_the_next(tmp_path: Path) -> None:
    (file := tmp_path / "log").write_text('{"whole": 1}\n{"tor')
    run("log.info('next')", file)
    unfinished, following = file.read_text(encoding="utf-8").splitlines()[1:]
    assert unfinished == '{"tor'
    assert json.loads(following)["event"] == "next"


def test_a_line_that_another_process_is_writing_at_this_moment_is_left_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (file := tmp_path / "log").write_text('{"theirs')
    with file.open("a") as theirs, monkeypatch.context() as patch:
        patch.setattr(time, "sleep", lambda _: print('": 1}', file=theirs, flush=True))
        ours = log_file.LogFile(file)
    with contextlib.closing(ours):
        ours.write(b"{}\n")
    assert lines_of(file) == [{"theirs": 1}, {}]


def test_of_many_lines_at_once_those_that_fit_on_the_disk_are_kept_and_the_others_counted(
    tmp_path: Path,
) -> None:
    many = 'log.info("written", number=number)'
    script = FILL_UP.format(room=600).replace(
        many, 'log_many("written", [("info", {"number": 3 * number + row}) for row in range(3)])'
    )
    printed = run(script, file := tmp_path / "log")
    kept = [line["number"] for line in lines_of(file) if line["event"] == "written"]
    assert kept == list(range(3, 3 + len(kept)))
    assert 0 < len(kept) < 9
    restored = next(line for line in lines_of(file) if line["event"] == "log_file_restored")
    assert restored["lost"] == len([line for line in printed if line not in lines_of(file)])


# In both processes: single lines, and now and then several at once.
NUMBERED = """
for number in range({first}, {last}, 10):
    if number % 100:
        for single in range(number, number + 10):
            log.info("written", number=single)
    else:
        log_many("written", [("info", {{"number": single}}) for single in range(number, number + 10)])
"""


def files_of(file: Path) -> list[Path]:
    """Return the files of that name, the oldest first."""
    return sorted(file.parent.glob(f"{file.name}*"), key=lambda path: -int(path.suffix.strip(".") or 0))


@pytest.mark.wide
def test_two_processes_share_a_file_that_is_renamed_again_and_again_and_no_line_is_lost(
    tmp_path: Path,
) -> None:
    file, limit = tmp_path / "log", 60_000
    halves = [(0, 10_000), (10_000, 20_000)]
    scripts = [NUMBERED.format(first=first, last=last) for first, last in halves]
    both = [start(script, file, limit, files=1_000) for script in scripts]
    for process in both:
        assert process.communicate(timeout=HANG_SECONDS)[1] == ""
    files = files_of(file)
    numbers = [line["number"] for line in lines_of(*files)]
    assert sorted(numbers) == list(range(20_000))
    for first, last in halves:  # a line of the one may get into a file that the other has just renamed
        assert [number for number in numbers if first <= number < last] == list(range(first, last))
    sizes = [path.stat().st_size for path in files[:-1]]
    assert len(sizes) > 20
    assert limit * 0.9 < min(sizes)
    # While the one renames, the other need not wait, and writes on: for long where it loses the processor.
    assert statistics.median(sizes) <= limit + 2_000


def frozen(patch: pytest.MonkeyPatch, module: ModuleType, name: str, meanwhile: Callable[[], None]) -> None:
    """Do something just before the first call of a function, as another process may."""
    function = getattr(module, name)

    def called(*arguments: object) -> None:
        patch.setattr(module, name, function)
        meanwhile()
        function(*arguments)

    patch.setattr(module, name, called)


FULL, OTHER, OURS = "." * 95 + "\n", "other\n", "ours\n"


@pytest.mark.parametrize(
    ("point", "kept"),
    [
        # Both found the file full; the other one renames it before ours gets the lock.
        ((fcntl, "flock"), {"log.1": FULL, "log": OTHER + OURS}),
        # Ours has the lock: the other one goes on with the file as it is.
        ((log_file, "_move_up"), {"log.1": FULL + OTHER, "log": OURS}),
    ],
)
def test_of_two_that_find_the_file_full_at_once_one_renames_it(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    point: tuple[ModuleType, str],
    kept: dict[str, str],
) -> None:
    monkeypatch.setattr(log_file, "MAX_BYTES", 100)
    ours, other = (log_file.LogFile(tmp_path / "log") for _ in range(2))
    with contextlib.closing(ours), contextlib.closing(other):
        ours.write(FULL.encode())
        frozen(monkeypatch, *point, lambda: other.write(OTHER.encode()))
        ours.write(OURS.encode())
    assert {path.name: path.read_text() for path in tmp_path.iterdir()} == kept


def test_there_are_never_more_than_so_many_files_and_the_oldest_lines_go(tmp_path: Path) -> None:
    run(NUMBERED.format(first=0, last=1_000), file := tmp_path / "log", 10_000, files=3)
    assert [path.name for path in files_of(file)] == ["log.2", "log.1", "log"]
    numbers = [line["number"] for line in lines_of(*files_of(file))]
    assert numbers == list(range(1_000 - len(numbers), 1_000))
    assert max(path.stat().st_size for path in files_of(file)) <= 10_000


def test_a_file_that_was_moved_away_in_between_costs_no_older_one(tmp_path: Path) -> None:
    file = tmp_path / "log"
    (tmp_path / "log.2").write_text("older\n")
    run(NUMBERED.format(first=0, last=100), file, 10_000, files=3)
    assert (tmp_path / "log.2").read_text() == "older\n"
    assert len(lines_of(tmp_path / "log.1", file)) == 100


@pytest.mark.wide
def test_a_process_that_starts_goes_on_with_the_file(tmp_path: Path) -> None:
    file = tmp_path / "log"
    for first in range(0, 300, 100):
        run(NUMBERED.format(first=first, last=first + 100), file, 25_000)
    assert [path.name for path in files_of(file)] == ["log.1", "log"]
    assert [line["number"] for line in lines_of(*files_of(file))] == list(range(300))


def test_a_file_that_somebody_renames_or_removes_or_empties_is_written_anew(tmp_path: Path) -> None:
    script = """
log.info("written", number=1)
file.rename(file.with_name("renamed"))
log.info("written", number=2)
file.unlink()
log.info("written", number=3)
log.info("written", number=4)
file.with_name("copied").write_bytes(file.read_bytes())
file.open("w").close()
log.info("written", number=5)
"""
    run(script, file := tmp_path / "log")
    kept = {path.name: [line["number"] for line in lines_of(path)] for path in tmp_path.iterdir()}
    assert kept == {"renamed": [1], "copied": [3, 4], file.name: [5]}


def test_lines_for_which_no_file_can_be_made_are_counted(tmp_path: Path) -> None:
    script = """
log.info("written", number=1)
file.unlink()
file.parent.rmdir()
log.info("written", number=2)
log_many("written", [("info", {"number": 3}), ("info", {"number": 4})])
file.parent.mkdir()
log.info("written", number=5)
"""
    (file := tmp_path / "directory" / "log").parent.mkdir()
    printed = run(script, file)
    assert [line for line in printed if line["event"] == "log_file_failed"] == [printed[1]]
    assert printed[1]["error"] == "ENOENT"
    written, restored = lines_of(file)
    assert (written["number"], restored["event"], restored["lost"]) == (5, "log_file_restored", 4)


def test_a_disk_that_is_full_when_the_file_is_renamed_costs_what_does_not_fit_and_no_more(
    tmp_path: Path,
) -> None:
    script = """
log.info("written", number=0, filling="." * 900)
hard = resource.getrlimit(resource.RLIMIT_FSIZE)[1]
resource.setrlimit(resource.RLIMIT_FSIZE, (0, hard))
for number in range(1, 4):
    log.info("written", number=number, filling="." * 900)
resource.setrlimit(resource.RLIMIT_FSIZE, (hard, hard))
log.info("written", number=4)
"""
    printed = run(script, file := tmp_path / "log", 1_500)
    older, newer = files_of(file)
    assert [line["number"] for line in lines_of(older)] == [0]
    written, restored = lines_of(newer)
    assert (written["number"], restored["event"]) == (4, "log_file_restored")
    assert restored["lost"] == len([line for line in printed if line not in lines_of(older, newer)]) == 4


def test_while_no_new_file_can_be_opened_lines_go_to_the_renamed_one(tmp_path: Path) -> None:
    script = """
log.info("written", number=0, filling="." * 900)
soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
resource.setrlimit(resource.RLIMIT_NOFILE, (3, hard))
for number in range(1, 4):
    log.info("written", number=number, filling="." * 900)
resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
log.info("written", number=4)
"""
    run(script, file := tmp_path / "log", 1_500)
    older, newer = files_of(file)
    assert [line["number"] for line in lines_of(older)] == [0, 1, 2, 3]
    assert [line["number"] for line in lines_of(newer)] == [4]


def test_a_file_that_cannot_be_renamed_grows_on_and_one_line_says_so(tmp_path: Path) -> None:
    file = tmp_path / "log"
    (tmp_path / "log.1" / "in the way").mkdir(parents=True)
    printed = run(NUMBERED.format(first=0, last=100), file, 10_000, files=2)
    failed = [line for line in printed if line["event"] == "log_file_not_rotated"]
    assert [(line["level"], line["error"]) for line in failed] == [("error", "EISDIR")]
    kept = lines_of(file)  # where the report comes before the line that was in hand
    assert len(kept) == len(printed) == 101
    assert [line for line in kept if line not in failed] == [line for line in printed if line not in failed]


def test_a_link_is_appended_to_and_never_renamed(tmp_path: Path) -> None:
    (file := tmp_path / "log").symlink_to(tmp_path / "target")
    run(NUMBERED.format(first=0, last=200), file, 1_000)
    assert {path.name for path in tmp_path.iterdir()} == {"log", "target"}
    assert len(lines_of(tmp_path / "target")) == 200
