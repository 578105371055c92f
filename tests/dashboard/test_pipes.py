"""What is no file is read to its end: pipes by any path, FIFOs, standard input."""

import gzip
import json
import os
import subprocess
import threading
from pathlib import Path

import pytest

from tests.dashboard.conftest import Serve, wait_until, words
from tests.dashboard.loglines import NOW, batch, text
from tests.forked import Forked, run
from tests.processes import HANG_SECONDS
from worker.dashboard.log_state import LogState
from worker.dashboard.reading import Logs


def applied(count: int) -> bytes:
    return text([batch(applied=count)])


def applied_of(state: LogState) -> int:
    return state.page_state(live=True).lanes[0].outcomes["applied"]


def write_in_pieces(path: Path | int, content: bytes, size: int) -> threading.Thread:
    """Write from a thread, since to open a FIFO is to wait for the other side."""

    def write() -> None:
        with open(path, "wb", 0) as pipe:  # noqa: PTH123 - a descriptor as well
            pipe.writelines(content[start : start + size] for start in range(0, len(content), size))

    thread = threading.Thread(target=write)
    thread.start()
    return thread


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("kind", ["fifo", "descriptor"])
def test_a_pipe_is_read_to_its_end(tmp_path: Path, kind: str, *, packed: bool) -> None:
    content = b"".join(applied(1) for _ in range(500)).rstrip(b"\n")
    content = gzip.compress(content) if packed else content
    reading = -1
    if kind == "fifo":
        path = tmp_path / "pipe"
        os.mkfifo(path)
        writer = write_in_pieces(path, content, 1000)
    else:
        reading, writing = os.pipe()
        path = Path(f"/dev/fd/{reading}")
        writer = write_in_pieces(writing, content, 1000)
    state = LogState(lambda: NOW)
    logs = Logs([path], state)
    for _ in logs.read():
        pass
    logs.close()
    writer.join(HANG_SECONDS)
    if reading >= 0:
        os.close(reading)
    assert (applied_of(state), state.source.broken, state.source.files) == (500, 0, 1)


def test_standard_input_is_a_log_as_well(tmp_path: Path) -> None:
    log = tmp_path / "worker.log"
    log.write_bytes(applied(1))
    for name in ("-", "/dev/stdin"):
        typed = words(log, name, "--json")
        ended = run(typed, {}, input=applied(2).decode(), timeout=HANG_SECONDS)
        assert json.loads(ended.stdout)["lines"] == 2


def test_a_pipe_is_followed_where_the_page_is_served_and_nothing_waits_for_it(
    tmp_path: Path, serve: Serve
) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)

    with serve(pipe, "--serve", "0") as (client, _):

        def shown() -> int:
            lanes = client.get("/snapshot.json").raise_for_status().json()["lanes"]
            return int(lanes[0]["outcomes"]["applied"])

        assert shown() == 0
        for count in (1, 2):
            with pipe.open("wb") as writer:
                line = applied(1)
                writer.write(line[:20])
                writer.flush()
                assert shown() == count - 1
                writer.write(line[20:])
            wait_until(lambda: shown() == count)  # noqa: B023 - before the next


def test_ctrl_c_ends_the_waiting_for_a_pipe(tmp_path: Path) -> None:
    reading, writing = os.pipe()
    with (
        os.fdopen(reading, "rb") as given,
        os.fdopen(writing, "wb") as kept,
        (tmp_path / "errors").open("w+b") as errors,
    ):
        process = Forked(words("-"), {}, stdin=given, stdout=subprocess.DEVNULL, stderr=errors)
        kept.write(b"x" * 2**20)  # more than a pipe holds: it reads, and waits for more
        kept.flush()
        process.send_signal(2)
        assert process.wait(HANG_SECONDS) == 1
        errors.seek(0)
        assert errors.read() == b"Interrupted.\n"
