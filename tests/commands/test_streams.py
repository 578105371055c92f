"""Processes live with standard streams that are closed, full, given up by their reader, or of few letters."""

import asyncio
import io
import logging
import os
import re
import signal
import subprocess
import sys
import threading
from pathlib import Path

import asyncpg
import pytest

from deploy.local.children import tied_to_us
from shared.logs.setup import LogStreamHandler
from shared.process.streams import Patient, patient
from tests.forked import ROOT
from tests.log_lines import hold_printed
from tests.processes import HANG_SECONDS, environment, free_port

FULL = Path("/dev/full")
LETTER = """
    INSERT INTO outbox_dead_letters (id, aggregate_id, event_type, source, payload, created_at, error)
    VALUES (1, '日本', 'collection.updated', 'api', '{}', clock_timestamp(), 'no');
    SELECT setval('outbox_events_id_seq', 10);
"""


def started_by_a_shell(command: str, env: dict[str, str], **more: str) -> subprocess.Popen[str]:
    """Start what a person types, with `python` for the interpreter: a start is the matter here, no fork."""
    return subprocess.Popen(
        tied_to_us(["bash", "-c", f"exec {command.replace('python', sys.executable, 1)}"], "KILL"),
        cwd=ROOT,
        env={**env, **more},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


async def ended(command: str, env: dict[str, str], **more: str) -> tuple[int, str, str]:
    process = started_by_a_shell(command, env, **more)
    out, errors = await asyncio.to_thread(process.communicate, timeout=HANG_SECONDS)
    hold_printed(errors)
    return process.returncode, out, errors


async def test_letters_that_the_terminal_lacks_are_written_as_numbers(
    database_url: str, redis_url: str, sql: asyncpg.Connection
) -> None:
    await sql.execute(LETTER)
    env = environment(database_url, redis_url)
    shown = await ended("python -m worker.dead_letters show 1", env, PYTHONIOENCODING="latin-1")
    assert shown[0] == 0, shown
    assert r"\u65e5\u672c" in shown[1]


async def test_a_command_without_standard_streams_ends_as_it_would_with_them(
    database_url: str, redis_url: str
) -> None:
    env = environment(database_url, redis_url)
    assert (await ended("python -m worker.audit <&- 2>&-", env))[0] == 0
    assert (await ended("python -m worker.audit <&- >&- 2>&-", env))[0] == 0


PROCESSES = {
    "worker <&- >&- 2>&-": 0,
    "worker >/dev/full": 0,
    "uvicorn api.main:app --port PORT <&-": -signal.SIGTERM,
}


@pytest.mark.parametrize("process", PROCESSES)
async def test_a_process_lives_and_ends_well_without_them(
    process: str, database_url: str, redis_url: str, tmp_path: Path
) -> None:
    log = tmp_path / "log"
    env = environment(database_url, redis_url, LOG_FILE=str(log))
    running = started_by_a_shell(f"python -m {process.replace('PORT', str(free_port()))}", env)
    async with asyncio.timeout(HANG_SECONDS):
        while not (log.exists() and re.search("worker_started|startup complete", log.read_text())):
            assert running.poll() is None, running.communicate()
            await asyncio.sleep(0.05)
    running.send_signal(signal.SIGTERM)
    out, errors = await asyncio.to_thread(running.communicate, timeout=HANG_SECONDS)
    assert running.returncode == PROCESSES[process], errors
    assert "Traceback" not in out + errors


def writing_to(path: Path, encoding: str = "utf-8") -> Patient:
    return Patient(os.open(path, os.O_WRONLY | os.O_CREAT), encoding, "<stdout>")


def closed(stream: Patient) -> None:
    os.close(stream.fileno())


def test_what_cannot_be_written_is_lost_and_noted_once(tmp_path: Path) -> None:
    stream = writing_to(FULL)
    print("lost", file=stream, flush=True)
    failure = stream.take_failure()
    assert failure is not None
    assert failure.strerror == "No space left on device"
    assert stream.take_failure() is None
    os.dup2(os.open(tmp_path / "file", os.O_WRONLY | os.O_CREAT), stream.fileno())
    print("there is room again", file=stream)
    assert (tmp_path / "file").read_text() == "there is room again\n"
    assert stream.take_failure() is None
    closed(stream)


def test_a_reader_that_went_is_known_from_a_disk_that_is_full() -> None:
    reading, writing = os.pipe()
    stream = Patient(writing, "utf-8", "<stdout>")
    print("read", file=stream)
    assert not stream.is_abandoned
    os.close(reading)
    print("unread", file=stream)
    assert stream.is_abandoned
    os.close(writing)
    full = writing_to(FULL)
    print("lost", file=full)
    assert not full.is_abandoned
    closed(full)


@pytest.mark.parametrize(
    ("encoding", "written"),
    [("utf-8", "日é".encode()), ("latin-1", b"\\u65e5\xe9"), ("ascii", b"\\u65e5\\xe9")],
)
def test_each_encoding_has_a_form_of_every_letter(tmp_path: Path, encoding: str, written: bytes) -> None:
    stream = writing_to(tmp_path / "file", encoding)
    print("日é\ud800", file=stream)
    assert (tmp_path / "file").read_bytes() == written + b"\\ud800\n"
    closed(stream)


def test_a_pipe_that_does_not_wait_is_waited_for() -> None:
    reading, writing = os.pipe()
    os.set_blocking(writing, False)
    received = bytearray()

    def read() -> None:
        while chunk := os.read(reading, 65_536):
            received.extend(chunk)

    reader = threading.Thread(target=read)
    reader.start()
    stream = Patient(writing, "utf-8", "<stdout>")
    stream.write("x" * 2**20)
    os.close(writing)
    reader.join(HANG_SECONDS)
    os.close(reading)
    assert (len(received), stream.take_failure()) == (2**20, None)


def test_lines_of_the_log_that_are_lost_are_told_of_once_an_outage(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    stream = writing_to(FULL)
    handler = LogStreamHandler(stream)
    full = os.dup(stream.fileno())
    room = os.open(tmp_path / "file", os.O_WRONLY | os.O_CREAT)
    for number in (full, full, room, full):
        os.dup2(number, stream.fileno())
        handler.handle(logging.makeLogRecord({"msg": "{}"}))
    assert capsys.readouterr().err == "Log lines are lost: <stdout>: No space left on device.\n" * 2
    assert (tmp_path / "file").read_text() == "{}\n"
    assert stream.take_failure() is None, "so that it is no failure of the process"
    for number in (full, room):
        os.close(number)
    closed(stream)


def test_what_is_no_file_stays_as_it_is() -> None:
    stream = io.StringIO()
    assert patient(stream) is stream


ORDERLY = """
import sys
from shared.process.orderly import orderly
with orderly():
    {}
"""


@pytest.mark.parametrize(
    ("body", "streams", "status", "said"),
    [
        ("pass", "", 0, ""),
        ("sys.exit(2)", "", 2, ""),
        ("sys.exit('why')", "", 1, "why\n"),
        ("print('x')", ">/dev/full", 1, "The result could not be written to standard output: No space left"),
        ("print('x'); sys.exit(2)", ">/dev/full", 2, "The result could not be written"),
        ("print('x')", "| true", 0, ""),
        ("raise KeyboardInterrupt", "", 1, "Interrupted.\n"),
        ("raise ValueError('a secret')", "", 1, "This is a fault of ours: ValueError.\n"),
        ("import json; json.loads('{')", "<&- >&-", 1, "This is a fault of ours: JSONDecodeError.\n"),
    ],
)
def test_every_process_ends_with_a_status_and_a_sentence(
    body: str, streams: str, status: int, said: str
) -> None:
    typed = f'"$0" -c "$1" {streams}; exit ${{PIPESTATUS[0]}}'
    ran = subprocess.run(
        ["bash", "-c", typed, sys.executable, ORDERLY.format(body)],  # noqa: S607 - whichever there is
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert ran.returncode == status
    assert ran.stderr.startswith(said)
    assert bool(ran.stderr) == bool(said)
    assert ran.stderr.count("\n") <= 1
