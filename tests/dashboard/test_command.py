"""`python -m worker.dashboard` as an operator runs it: its exit status, its output, its files."""

import base64
import gzip
import hashlib
import json
import os
import pty
import re
import stat
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from tests.dashboard.conftest import Run, command
from tests.dashboard.loglines import batch, line, text
from tests.forked import ROOT
from worker.dashboard.__main__ import parse
from worker.dashboard.command import run as execute

KEYS = {
    "state", "title", "detail", "may_go_on", "reasons", "next_steps", "verified_at", "last_heartbeat_at",
    "compared", "missing", "mismatched", "orphaned", "pending", "repaired", "dead_letters",
    "phase", "phase_since", "going_back_lost", "files", "lines", "broken", "unknown", "unread",
}  # fmt: skip


def a_log(path: Path, verdict: str = "in_sync", *, silent_seconds: float = 0, **counts: int) -> Path:
    now = time.time() - silent_seconds
    level = "error" if verdict == "drift" else "info"
    lines = [
        line("worker_started", now - 60, worker="host:1"),
        line("audit_finished", now - 5, verdict=verdict, level=level, compared=1234, **counts),
        batch(now - 3, lags={10: 2}, applied=2),
        line("worker_heartbeat", now - 1, dead_letters=0),
    ]
    path.write_bytes(text(lines))
    return path


@pytest.fixture
def log(tmp_path: Path) -> Path:
    return tmp_path / "worker.log"


def test_the_answers_are_printed(log: Path, run: Run) -> None:
    begun = time.time()
    ended = run(a_log(log))
    assert ended.returncode == 0
    assert re.match(r"In sync: all 1,234 pairs agree, audited at [\d:]+\.\nYou may go on\.\n", ended.stdout)
    said = re.search(r"verified +(\d+) s ago", ended.stdout)
    assert said is not None
    assert 5 <= int(said[1]) <= 6 + time.time() - begun  # rounded
    assert re.search(r"live +2 applied; lag p50 2.5 ms", ended.stdout)
    assert ended.stderr == ""


@pytest.mark.parametrize(
    ("verdict", "counts", "silent", "status"),
    [
        ("in_sync", {}, 0, 0),
        ("pending", {"pending": 1}, 0, 0),
        ("repaired", {"missing": 1, "repaired": 1}, 0, 1),
        ("drift", {"missing": 1}, 0, 1),
        ("incomplete", {}, 0, 1),
        ("in_sync", {}, 60, 1),
    ],
)
def test_the_exit_status_says_whether_all_is_well(
    log: Path, run: Run, *, verdict: str, counts: dict[str, int], silent: float, status: int
) -> None:
    assert run(a_log(log, verdict, silent_seconds=silent, **counts)).returncode == status


def test_json_is_one_line_and_nothing_else(log: Path, run: Run) -> None:
    begun = time.time()
    a_log(log, "drift", missing=2, mismatched=1, pending=4)
    with log.open("a") as file:
        file.write("broken\n")
    ended = run(log, "--json")
    [written] = ended.stdout.splitlines()
    result = json.loads(written)
    assert result.keys() == KEYS
    assert result["next_steps"] == ["python -m worker.audit --repair", "python -m worker.audit"]
    assert (result["state"], result["title"], result["may_go_on"]) == ("drift", "Drift: 3", False)
    assert (result["compared"], result["missing"], result["mismatched"], result["pending"]) == (1234, 2, 1, 4)
    assert (result["lines"], result["broken"], result["files"], result["dead_letters"]) == (5, 1, 1, 0)
    assert begun - 1.1 < result["last_heartbeat_at"] < time.time() - 1
    assert ended.returncode == 1


def test_wrong_usage_ends_with_two_and_says_what_to_do(log: Path, run: Run) -> None:
    a_log(log)
    for arguments, word in (
        ([], "LOG"),
        ([log.parent / "other.log"], "There is no file"),
        ([log.parent], "is a directory. Name the log files in it"),
        ([log, "--serve", "port"], "must be a whole number from 0 to 65535, not 'port'"),
        ([log, "--serve", "70000"], "must be a whole number from 0 to 65535"),
        ([log, "--serve", "0", "--html", "page.html"], "not allowed with"),
        ([log, "--serve", "0", "--json"], "/snapshot.json"),
        ([log, "--html", log], "is one of the logs"),
        ([log, "--html", f"{log}.1"], "is one of the logs, or would be"),
        ([log, "--html", log.parent / "." / "worker-20260131.log"], "is one of the logs, or would be"),
    ):
        ended = run(*arguments)
        assert ended.returncode == 2
        assert word in ended.stderr
        assert ended.stdout == ""
    assert run(log).returncode == 0, "the log is as it was"


def test_a_page_that_cannot_be_written_is_a_failure(log: Path, run: Run) -> None:
    ended = run(a_log(log), "--html", log.parent / "nowhere" / "page.html")
    assert ended.returncode == 1
    assert "cannot be written" in ended.stderr


@pytest.mark.parametrize("how", [["--html", "page.html"], ["--serve", "0"]])
def test_without_plotly_there_is_no_page_and_one_line_says_what_to_install(
    log: Path, how: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "plotly", None)
    monkeypatch.chdir(log.parent)
    assert execute(parse([str(a_log(log)), *how])) == 1
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err == "The page needs plotly, which is not installed: pip install plotly\n"
    assert list(log.parent.iterdir()) == [log]


def test_without_plotly_the_terminal_and_json_answer(
    log: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "plotly", None)
    assert execute(parse([str(a_log(log))])) == 0
    assert execute(parse([str(log), "--json"])) == 0
    assert "In sync" in capsys.readouterr().out


@pytest.mark.parametrize("number", ["0", "-1", "99", "999999999999"])
def test_what_is_handed_over_and_no_listener_is_named(log: Path, run: Run, number: str) -> None:
    ended = run(a_log(log), "--serve", "0", "--fd", number)
    assert (ended.returncode, ended.stdout) == (1, "")
    assert re.fullmatch(rf"--fd {number} is no socket that listens: .*\n", ended.stderr)


def test_help_explains_logs_and_exit_status(run: Run) -> None:
    ended = run("--help")
    assert ended.returncode == 0
    for word in ("LOG", "--serve", "--html", "--json", "exit status", "no environment variable"):
        assert word in ended.stdout


def test_the_page_is_one_file_that_loads_nothing(log: Path, run: Run) -> None:
    a_log(log, "drift", missing=2)
    page = log.parent / "page.html"
    page.write_text("an older page")
    ended = run(log, "--html", page, "--json")
    assert ended.returncode == 0
    assert json.loads(ended.stdout)["state"] == "drift"
    assert stat.S_IMODE(page.stat().st_mode) & 0o444 == 0o444
    assert list(log.parent.iterdir()) in ([log, page], [page, log]), "nothing is left beside it"
    html = page.read_text(encoding="utf-8")
    assert "{{" not in html.replace("\n{{", "{{").split("<script>")[0]
    [policy] = re.findall(r'<meta http-equiv="Content-Security-Policy" content="([^"]+)">', html)
    scripts = re.findall(r"<script>(.*?)</script>", html, re.DOTALL)
    assert len(scripts) == 2
    [packed] = re.findall(r'<script type="application/gzip" id="packed">([^<]+)</script>', html)
    library = gzip.decompress(base64.b64decode(packed)).decode()
    assert library.lstrip("/* \n").startswith("plotly.js v")
    for script in (library, *scripts):
        assert f"'sha256-{base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()}'" in policy
    assert "default-src 'none'" in policy
    assert "connect-src 'none'" in policy
    assert not re.search(r'<(script|link|img)[^>]+(src|href)="(?!data:)', html)
    page_state = embedded(html)
    assert (page_state["live"], page_state["verdict"]["title"]) == (False, "Drift: 2")


def embedded(html: str) -> dict[str, Any]:
    [data] = re.findall(r'<script type="application/json" id="snapshot">(.*?)</script>', html, re.DOTALL)
    content: dict[str, Any] = json.loads(data)
    return content


@pytest.mark.parametrize("name", ["-", "/dev/stdout"])
def test_the_page_may_go_to_standard_output_and_nothing_else_does_then(
    log: Path, run: Run, name: str
) -> None:
    ended = run(a_log(log), "--html", name)
    assert ended.returncode == 0
    assert ended.stdout.startswith("<!doctype html>")
    assert ended.stdout.endswith("</html>\n")
    assert embedded(ended.stdout)["verdict"]["title"] == "In sync"


def test_no_log_can_put_markup_into_the_page(log: Path, run: Run) -> None:
    evil = "</script><script>alert(1)</script><!--\u2028& \ud800"
    log.write_bytes(
        text(
            [
                json.dumps(json.loads(line("redis_lost", time.time(), error="x")) | {"error": evil}),
                "{{script}} " + evil.encode("utf-8", "replace").decode(),
            ]
        )
    )
    page = log.parent / "page.html"
    assert run(log, "--html", page).returncode == 0
    html = page.read_text(encoding="utf-8")
    assert "alert(1)</script>" not in html
    troubles = embedded(html)["troubles"]
    assert troubles[0]["fields"]["error"] == evil


def test_a_bar_is_drawn_at_a_terminal(log: Path) -> None:
    a_log(log)
    leader, follower = pty.openpty()
    process = subprocess.Popen(
        command(log, "--json"),
        cwd=ROOT,
        env={"TERM": "xterm"},
        stdout=subprocess.PIPE,
        stderr=follower,
        text=True,
    )
    os.close(follower)
    drawn = b""
    with process:
        while chunk := _read(leader):
            drawn += chunk
        assert process.stdout is not None
        assert len(process.stdout.read().splitlines()) == 1
    os.close(leader)
    assert b"Reading" in drawn
    assert process.returncode == 0


def _read(leader: int) -> bytes:
    try:
        return os.read(leader, 1000)
    except OSError:  # nobody writes any more
        return b""
