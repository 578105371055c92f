"""`make run` from the outside: the process is started, read and interrupted as a person would."""

import contextlib
import os
import re
import shlex
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from deploy.local.children import tied_to_us
from deploy.local.service import hold
from deploy.local.valkey import Valkey
from tests.databases import Databases
from tests.local.starts import ROOT, eventually, gone
from tests.processes import HANG_SECONDS
from tests.programs import needed

READY = re.compile("What happens, a line for each event|No worker runs")
PID_FILES = ("api.pid", "worker.pid", "dashboard.pid", "postgresql/pid", "valkey/pid")


class Run:
    """A run of `python -m deploy.local`, and what it has said so far."""

    def __init__(self, data: Path, given: dict[str, str], *arguments: str) -> None:
        self.data = data
        self._said = data.with_name(f"{data.name}.said")
        kept = {name: value for name, value in os.environ.items() if not name.endswith("_URL")}
        with self._said.open("wb") as said:
            self.process = subprocess.Popen(
                tied_to_us([sys.executable, "-m", "deploy.local", "--data", str(data), *arguments], "KILL"),
                cwd=ROOT,
                env={**kept, **given},
                stdin=subprocess.DEVNULL,
                stdout=said,
                stderr=said,
            )

    @property
    def said(self) -> str:
        return self._said.read_text()

    @property
    def api(self) -> str:
        return self.line("API").split()[-1]

    def line(self, start: str) -> str:
        return next(line for line in self.said.splitlines() if line.startswith(start))

    def shell(self, line: str) -> str:
        """Run a line as it would be in another terminal that has read the file of variables."""
        kept = {name: value for name, value in os.environ.items() if not name.endswith("_URL")}
        done = subprocess.run(
            ["/bin/bash", "-e", "-c", f"{self.line('. ')}\n{line}"],
            cwd=ROOT,
            env=kept,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    def dashboard(self) -> dict[str, Any]:
        """Return what the dashboard shows now."""
        address = self.line("dashboard").split()[-1]
        shown: dict[str, Any] = (
            httpx.get(f"{address}/snapshot.json", timeout=HANG_SECONDS).raise_for_status().json()
        )
        return shown

    def until_ready(self) -> None:
        over = eventually(lambda: READY.search(self.said) or self.process.poll() is not None)
        assert over, self.said
        assert self.process.poll() is None, self.said

    def until_applied(self, count: int) -> None:
        assert eventually(lambda: self.said.count("  applied  ") == count), self.said

    def follows_the_curl_lines(self) -> None:
        needed("curl")
        lines = [line for line in self.said.splitlines() if line.startswith("curl")]
        assert "Unwanted" in self.shell(lines[0])
        for line in lines[1:]:
            assert "detail" not in self.shell(line)
        self.until_applied(3)

    def follows_the_commands(self) -> list[str]:
        """Type the printed commands, whatever status they end with, and return what they say."""
        lines = [line for line in self.said.splitlines() if line.startswith("python -m worker.")]
        return [self.shell(f"{line} || true") for line in lines]

    def pids(self) -> list[int]:
        """Return the ids of its processes, of those that it started itself."""
        files = [self.data / name for name in PID_FILES]
        return [int(file.read_text()) for file in files if file.exists()]

    def end_with(self, number: signal.Signals) -> int:
        self.process.send_signal(number)
        return self.process.wait(HANG_SECONDS)


@contextlib.contextmanager
def make_run(data: Path, given: dict[str, str], *arguments: str) -> Iterator[Run]:
    run = Run(data, given, *arguments)
    try:
        yield run
    finally:
        run.process.kill()
        run.process.wait(HANG_SECONDS)


@pytest.fixture
def given(databases: Databases, valkey: Valkey) -> Iterator[dict[str, str]]:
    """The addresses of servers that are there already; the database is not migrated yet."""
    with databases.clone("template1") as url:
        yield {"DATABASE_URL": url, "REDIS_URL": valkey.url}


def test_what_it_prints_works_and_an_interrupt_ends_it(tmp_path: Path) -> None:
    with make_run(tmp_path / "a place", {}) as run:
        run.until_ready()
        pids = run.pids()
        assert len(pids) == 5
        listing, creation, update, deletion = [
            line for line in run.said.splitlines() if line.startswith("curl")
        ]
        needed("curl")
        assert "sample-unlinked" in run.shell(listing)
        assert '"Made with curl"' in run.shell(creation)
        assert '"Updated with curl"' in run.shell(update)
        assert "deleted" in run.shell(deletion)
        run.until_applied(3)
        shown = run.shell(run.line("psql"))
        assert "Updated with curl" in shown
        assert "sample-untouched" not in shown
        assert "sample-unwanted" not in shown
        said = run.follows_the_commands()
        assert "agree" in said[-1]
        assert re.search(r"^preflight      \d+ ok$", run.said, re.MULTILINE)
        assert eventually(lambda: " has seen every row: " in run.said)
        assert run.shell('curl -s -o /dev/null -w "%{http_code}" "$API_URL/admin/backfill"') == "401"
        asked = '"$API_URL/admin/backfill" -H "X-Admin-Token: $ADMIN_TOKEN"'
        assert '"finished"' in run.shell(f"curl -s {asked}")
        assert eventually(lambda: run.dashboard()["verdict"]["state"] == "in_sync"), run.dashboard()
        assert run.end_with(signal.SIGINT) == 0
        assert re.search(r"^Stopping\.\n(.*\n)*Stopped\.\n\Z", run.said, re.MULTILINE)
        assert "Traceback" not in run.said
        assert gone(pids)


@pytest.mark.wide
def test_given_addresses_are_used_and_not_shown_and_the_printed_lines_work_again_at_the_next_start(
    given: dict[str, str], tmp_path: Path
) -> None:
    given["DATABASE_URL"] += "?sslmode=prefer&connect_timeout=10"
    with make_run(tmp_path / "data", given) as run:
        run.until_ready()
        run.follows_the_curl_lines()
        assert run.end_with(signal.SIGTERM) == 0
    with make_run(tmp_path / "data", given) as run:
        run.until_ready()
        run.follows_the_curl_lines()
        assert not (run.data / "postgresql").exists()
        assert not (run.data / "valkey").exists()
        assert given["DATABASE_URL"] not in run.said
        assert given["REDIS_URL"] not in run.said
        variables = (run.data / "env").read_text()
        assert not re.search("DATABASE_URL|REDIS_URL", variables)
        look = f"DATABASE_URL={shlex.quote(given['DATABASE_URL'])} {run.line('python -c')}"
        assert "sample-linked" in run.shell(look)
        assert run.end_with(signal.SIGTERM) == 0
        assert re.search(r"^Stopping\.\n(.*\n)*Stopped\.\n\Z", run.said, re.MULTILINE)


@pytest.mark.wide
def test_another_terminal_reads_what_it_needs_from_a_file_and_without_a_worker_events_wait(
    tmp_path: Path,
) -> None:
    with make_run(tmp_path / "a place", {}, "--no-worker") as run:
        run.until_ready()
        assert not (run.data / "worker.pid").exists()
        update = next(line for line in run.said.splitlines() if " PUT " in line)
        assert '"Updated with curl"' in run.shell(update)
        waiting = 'psql "$DATABASE_URL" -tAc "SELECT aggregate_id FROM outbox_events"'
        assert run.shell(waiting) == "sample-unlinked\n"
        asked = "import os, redis; print(redis.Redis.from_url(os.environ['REDIS_URL']).ping())"
        assert run.shell(f'python -c "{asked}"') == "True\n"
        dashboard = run.line("dashboard").split()[-1]
        assert run.shell('echo "$API_URL $DASHBOARD_URL"') == f"{run.api} {dashboard}\n"
        assert run.shell('test -f "$LOG_FILE" && echo there') == "there\n"
        assert (run.data / "env").stat().st_mode & 0o777 == 0o600
        assert run.end_with(signal.SIGINT) == 0
        assert not (run.data / "env").exists()
        for service in ("postgresql", "valkey"):
            assert (run.data / service / "password").read_text() not in run.said


def test_a_second_run_on_the_same_data_is_refused(tmp_path: Path) -> None:
    with hold(tmp_path / "data"), make_run(tmp_path / "data", {}) as run:
        assert run.process.wait(HANG_SECONDS) == 1
        assert f"in use by process {os.getpid()}" in run.said
        assert "Traceback" not in run.said


@pytest.mark.wide
def test_a_kill_leaves_no_process_behind(tmp_path: Path) -> None:
    with make_run(tmp_path / "data", {}) as run:
        run.until_ready()
        pids = run.pids()
        assert len(pids) == 5
        run.process.kill()
        assert eventually(lambda: gone(pids))


@pytest.mark.wide
def test_a_warning_is_shown_and_a_program_that_dies_is_named_and_ends_the_run(
    given: dict[str, str], tmp_path: Path
) -> None:
    with make_run(tmp_path / "data", given | {"REDIS_URL": "redis://127.0.0.1:1/0"}) as run:
        run.until_ready()
        assert eventually(lambda: "worker     PostgreSQL is up, Redis is away" in run.said), run.said
        pids = run.pids()
        os.kill(int((run.data / "worker.pid").read_text()), signal.SIGKILL)
        assert run.process.wait(HANG_SECONDS) == 1
        assert re.search(
            r"^The last lines of worker:\n(  .*\n)*worker ended with status -9\.$", run.said, re.MULTILINE
        )
        assert "Traceback" not in run.said
        assert gone(pids)


def test_a_service_that_dies_is_named_and_ends_the_run(tmp_path: Path) -> None:
    with make_run(tmp_path / "data", {}) as run:
        run.until_ready()
        pids = run.pids()
        os.kill(int((run.data / "valkey/pid").read_text()), signal.SIGKILL)
        assert run.process.wait(HANG_SECONDS) == 1
        assert "Valkey ended unexpectedly" in run.said
        assert gone(pids)


@pytest.mark.wide
def test_two_runs_started_at_once_take_two_ports(
    given: dict[str, str], databases: Databases, tmp_path: Path
) -> None:
    with databases.clone("template1") as url, contextlib.ExitStack() as stack:
        environments = [given, {**given, "DATABASE_URL": url}]
        runs = [
            stack.enter_context(make_run(tmp_path / str(number), environment, "--port", "18000"))
            for number, environment in enumerate(environments)
        ]
        for run in runs:
            run.until_ready()
        assert len({run.api for run in runs}) == 2
        for run in runs:
            assert run.end_with(signal.SIGINT) == 0


def test_an_address_that_is_none_is_explained_before_anything_starts(tmp_path: Path) -> None:
    with make_run(tmp_path / "data", {"DATABASE_URL": "nonsense"}) as run:
        assert run.process.wait(HANG_SECONDS) == 2
        assert run.said.startswith("DATABASE_URL: is not a URL")
        assert run.said.count("\n") == 1
        assert not run.data.exists()
