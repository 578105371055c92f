"""The page is written where one asked for it, whole or not at all, and never over what others need."""

import os
import resource
import stat
import threading
from pathlib import Path

import pytest

from worker.command_line.writing import write_page

OLD, NEW = "an older page", "the page"


@pytest.fixture
def page(tmp_path: Path) -> Path:
    path = tmp_path / "page.html"
    path.write_text(OLD)
    return path


def test_a_link_is_followed_also_to_what_is_not_there_yet(page: Path) -> None:
    (page.parent / "elsewhere").mkdir()
    for target in (page, page.parent / "elsewhere" / "new.html"):
        link = page.parent / "link.html"
        link.symlink_to(os.path.relpath(target, page.parent))
        write_page(link, NEW)
        assert link.is_symlink()
        assert target.read_text() == NEW
        link.unlink()


@pytest.mark.parametrize("mode", [0o600, 0o640, 0o664])
def test_who_could_read_the_old_page_may_read_the_new_one_and_nobody_else(page: Path, mode: int) -> None:
    page.chmod(mode)
    write_page(page, NEW)
    assert (page.read_text(), stat.S_IMODE(page.stat().st_mode)) == (NEW, mode)


def test_what_is_no_regular_file_is_written_as_a_stream(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    read: list[str] = []
    reader = threading.Thread(target=lambda: read.append(pipe.read_text()))
    reader.start()
    write_page(pipe, NEW)
    reader.join(30)
    assert read == [NEW]
    assert stat.S_ISFIFO(pipe.stat().st_mode)
    write_page(Path(os.devnull), NEW)
    assert stat.S_ISCHR(Path(os.devnull).stat().st_mode)


def test_where_it_cannot_be_written_the_old_page_stays_and_nothing_beside_it(page: Path) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, hard))
    try:
        with pytest.raises(OSError, match="File too large"):
            write_page(page, "x" * 2000)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    loop = page.parent / "loop"
    loop.symlink_to(loop)
    with pytest.raises(OSError, match="symbolic links"):
        write_page(loop, NEW)
    for path, said in (
        (page.parent, "Is a directory"),
        (page.parent / "no" / "page", "No such"),
        (page / "x", "Not a dir"),
        (Path("/dev/full"), "No space"),
    ):
        with pytest.raises(OSError, match=said):
            write_page(path, NEW)
    assert sorted(page.parent.iterdir()) == [loop, page]
    assert page.read_text() == OLD
