"""The served page: live, for this machine only, and answered while a long log is read."""

import re
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests import forked
from tests.dashboard.browser.watching import PAGE_ASKS_SECONDS
from tests.dashboard.conftest import Run, Serve, wait_until, words
from tests.dashboard.loglines import batch, line, text
from tests.forked import ROOT, Forked
from tests.processes import HANG_SECONDS
from worker.dashboard.server import LOG_POLL_SECONDS, PAGE_STATE_SECONDS

HEADERS = {
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
    "referrer-policy": "no-referrer",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-embedder-policy": "require-corp",
    "cross-origin-resource-policy": "same-origin",
}

PATHS = {
    "/": 200,
    "/snapshot.json": 200,
    "/plotly.js": 200,
    "/style.css": 200,
    "/script.js": 200,
    "/template.html": 404,
    "/../snapshot.py": 404,
}


@pytest.fixture
def log(tmp_path: Path) -> Path:
    path = tmp_path / "worker.log"
    now = time.time()
    path.write_bytes(
        text([line("worker_heartbeat", now), line("audit_finished", now), batch(now, applied=1)])
    )
    return path


def append(log: Path, *lines: str) -> None:
    with log.open("ab") as file:
        file.write(text(lines))


def snapshot(client: httpx.Client) -> dict[str, Any]:
    content: dict[str, Any] = client.get("/snapshot.json").raise_for_status().json()
    return content


def applied(client: httpx.Client) -> int:
    return sum(lane["outcomes"]["applied"] for lane in snapshot(client)["lanes"])


def test_new_lines_are_shown_within_two_seconds_also_after_a_rotation(log: Path, serve: Serve) -> None:
    assert LOG_POLL_SECONDS + PAGE_STATE_SECONDS + PAGE_ASKS_SECONDS < 2
    with serve(log, "--serve", "0") as (client, _):
        wait_until(lambda: applied(client) == 1)
        append(log, batch(time.time(), applied=10))
        wait_until(lambda: applied(client) == 11)
        log.rename(f"{log}.1")
        append(log, batch(time.time(), applied=100))
        wait_until(lambda: applied(client) == 111)


def test_the_page_turns_blind_and_sees_again_without_a_new_start(log: Path, serve: Serve) -> None:
    now = time.time()
    log.write_bytes(text([line("worker_heartbeat", now - 13.5), line("audit_finished", now - 20)]))

    def state(client: httpx.Client) -> str:
        return str(snapshot(client)["verdict"]["state"])

    def sees(client: httpx.Client) -> bool:
        append(log, line("worker_heartbeat", time.time()))
        shown = snapshot(client)
        return (shown["verdict"]["state"], shown["go_on"]["may"]) == ("in_sync", True)

    with serve(log, "--serve", "0") as (client, _):
        wait_until(lambda: state(client) == "blind")
        assert time.time() - (now - 13.5) >= 15
        assert not snapshot(client)["go_on"]["may"]
        wait_until(lambda: sees(client))


def test_a_snapshot_is_sent_once_while_nothing_changes(log: Path, serve: Serve) -> None:
    log.write_bytes(text([line("worker_heartbeat", time.time() - 3600)]))  # no step of time moves
    with serve(log, "--serve", "0") as (client, _):
        wait_until(lambda: snapshot(client)["source"]["lines"] == 1)
        first = client.get("/snapshot.json")
        assert first.headers["cache-control"] == "no-store"
        known = {"If-None-Match": first.headers["etag"]}
        for _ in range(2):
            again = client.get("/snapshot.json", headers=known)
            assert (again.status_code, again.content) == (304, b"")
            time.sleep(PAGE_STATE_SECONDS)  # so that the next one is made anew
        append(log, batch(time.time(), applied=1))
        wait_until(lambda: client.get("/snapshot.json", headers=known).status_code == 200)


def test_every_answer_carries_the_strict_headers_and_only_get_is_answered(log: Path, serve: Serve) -> None:
    with serve(log, "--serve", "0") as (client, _):
        for path, status in PATHS.items():
            answer = client.get(path)
            assert answer.status_code == status
            assert HEADERS.items() <= dict(answer.headers).items()
            policy = answer.headers["content-security-policy"]
            for rule in (
                "default-src 'none'",
                "script-src 'self'",
                "connect-src 'self'",
                "frame-ancestors 'none'",
            ):
                assert rule in policy.split("; ")
            assert client.head(path).status_code == status
        for method in ("POST", "PUT", "DELETE", "OPTIONS"):
            assert client.request(method, "/snapshot.json").status_code == 405


def test_a_page_of_another_name_cannot_read_it(log: Path, serve: Serve) -> None:
    with serve(log, "--serve", "0") as (client, _):
        port = client.base_url.port
        for host in (f"127.0.0.1:{port}", f"localhost:{port}", "LOCALHOST", f"[::1]:{port}"):
            assert client.get("/", headers={"Host": host}).status_code == 200
        for host in (
            "evil.example",
            f"evil.example:{port}",
            "127.0.0.1.evil.example",
            "",
            "localhost:80:80",
            "[::1",
        ):
            assert client.get("/", headers={"Host": host}).status_code == 421


def test_a_proxy_may_ask_by_a_name_that_was_given_and_below_any_path(log: Path, serve: Serve) -> None:
    with serve(log, "--serve", "0", "--host-name", "Boss.example:8443", "--host-name", "::2") as (client, _):
        for host in ("boss.example", "BOSS.example:8443", "[::2]:80", "localhost"):
            for path in ("/", "/ops/dashboard/", "/ops/dashboard/snapshot.json", "/x/style.css"):
                assert client.get(path, headers={"Host": host}).status_code == 200
        refused = client.get("/", headers={"Host": "other.example:8443"})
        assert refused.status_code == 421
        assert "--host-name" in refused.text
        assert "'other.example'" in refused.text
        assert client.get("/ops/nothing", headers={"Host": "boss.example"}).status_code == 404
        links = re.findall(r'(?:src|href)="([^"]*)"', client.get("/").text)
        assert links
        assert not [link for link in links if link.startswith(("/", "http:"))]


def test_the_page_names_only_what_its_server_has(log: Path, serve: Serve) -> None:
    with serve(log, "--serve", "0") as (client, _):
        html = client.get("/").text
        for part in ('href="style.css"', 'src="plotly.js"', 'src="script.js"', 'id="snapshot"'):
            assert part in html
        packed = client.get("/plotly.js")
        plain = client.get("/plotly.js", headers={"Accept-Encoding": "identity"})
        assert packed.headers["content-encoding"] == "gzip"
        assert "content-encoding" not in plain.headers
        assert packed.content == plain.content  # the client unpacks
        assert int(packed.headers["content-length"]) < len(plain.content) / 2
        assert "immutable" in packed.headers["cache-control"]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_it_well(log: Path, serve: Serve, number: signal.Signals) -> None:
    with serve(log, "--serve", "0") as (_, served):
        served.process.send_signal(number)
        assert served.process.wait(HANG_SECONDS) == 0
        assert "Traceback" not in served.errors


EAGER = """
import signal, sys
from worker.dashboard import __main__ as grammar, command as dashboard
say = dashboard.stderr.say

def say_and_interrupt(*words, **how):
    say(*words, **how)
    if words == ("Ctrl-C ends it.",):
        signal.raise_signal(signal.SIGINT)

dashboard.stderr.say = say_and_interrupt
sys.exit(dashboard.run(grammar.parse(sys.argv[1:])))
"""


def test_ctrl_c_ends_it_well_from_the_moment_on_that_it_says_so(log: Path) -> None:
    ended = subprocess.run(
        [sys.executable, "-c", EAGER, str(log), "--serve", "0"],
        cwd=ROOT,
        env={},
        capture_output=True,
        text=True,
        timeout=HANG_SECONDS,
        check=False,
    )
    assert (ended.returncode, ended.stderr) == (0, "Ctrl-C ends it.\n")


def test_a_port_that_is_taken_is_refused_and_without_one_the_next_is_tried(
    log: Path, serve: Serve, run: Run
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        ended = run(log, "--serve", port)
        assert (ended.returncode, ended.stdout) == (1, "")
        assert "Name another with --serve PORT" in ended.stderr
    with serve(log, "--serve") as (first, _), serve(log, "--serve") as (second, _):
        assert first.base_url.port is not None
        assert second.base_url.port is not None
        assert 8080 <= first.base_url.port < second.base_url.port < 8180


def test_what_a_supervisor_hands_over_is_served_and_must_listen(
    log: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)  # the whole path may be too long for a socket
    for family, address in ((socket.AF_INET, ("127.0.0.1", 0)), (socket.AF_UNIX, "socket")):
        with socket.socket(family) as bound, socket.socket(family) as client:
            bound.bind(address)
            typed = words(log, "--serve", "--fd", "0")
            ended = forked.run(typed, {}, timeout=HANG_SECONDS)
            assert (ended.returncode, ended.stderr[-15:]) == (1, "on non-socket.\n")
            silent = Forked(typed, {}, stdin=bound.fileno(), stderr=subprocess.STDOUT)
            assert silent.stdout is not None
            with silent.stdout as said:
                assert said.read() == "--fd 0 is no socket that listens: it does not listen.\n"
            assert silent.wait(HANG_SECONDS) == 1
            bound.listen()
            served = Forked(typed, {}, stdin=bound.fileno(), stderr=subprocess.STDOUT)
            assert served.stdout is not None
            with served.stdout as said:
                assert said.readline().startswith(("http://127.0.0.1:", "unix:socket"))
                client.connect(bound.getsockname())
                client.sendall(b"GET / HTTP/1.0\r\nHost: localhost\r\n\r\n")
                assert client.recv(15) == b"HTTP/1.1 200 OK"
                served.terminate()
                assert served.wait(HANG_SECONDS) == 0


def test_it_is_answered_while_a_long_log_is_read(log: Path, serve: Serve) -> None:
    lines = text([batch(time.time() - 60, applied=1)] * 30_000)
    for times in (1, 4, 16):  # longer, where nobody came to ask before all was read
        log.write_bytes(lines * times)
        with serve(log, "--serve", "0") as (client, _):
            seen: list[dict[str, Any]] = []
            while not seen or seen[-1]["bytes_read"] < seen[-1]["bytes_total"]:
                seen.append(snapshot(client)["source"])
            assert all(source["bytes_total"] == log.stat().st_size for source in seen)
            wait_until(lambda: applied(client) == times * 30_000)  # noqa: B023 - before the next
        if len({source["bytes_read"] for source in seen}) > 1:
            return
    pytest.fail("it was never seen half read")
