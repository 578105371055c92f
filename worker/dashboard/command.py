"""What the command does: read logs, and serve, write or print what they say."""

import argparse
import asyncio
import contextlib
import json
import socket
from pathlib import Path

import uvloop
from rich.console import Console

from worker.dashboard import terminal
from worker.dashboard.files import LogFileError
from worker.dashboard.log_state import LogState
from worker.dashboard.reading import Logs
from worker.dashboard.rendering import self_contained, write_whole
from worker.dashboard.server import serve
from worker.dashboard.snapshot import Snapshot

SUCCESS, FAILURE, WRONG_USAGE = 0, 1, 2
BAD = {"blind", "database_away", "drift", "incomplete", "unverified"}
AUDIT_COUNTS = ("compared", "missing", "mismatched", "orphaned", "pending", "repaired")

stdout = Console(highlight=False)
stderr = Console(stderr=True, highlight=False)


class CannotError(Exception):
    """The command cannot do what was asked; the message says what to do next."""


def run(options: argparse.Namespace) -> int:
    """Do what was asked and return the exit status."""
    try:
        return execute(options)
    except LogFileError as error:
        stderr.print(str(error), markup=False, soft_wrap=True)
        return WRONG_USAGE
    except CannotError as error:
        stderr.print(str(error), markup=False, soft_wrap=True)
    except KeyboardInterrupt:
        stderr.print("Interrupted.")
    return FAILURE


def execute(options: argparse.Namespace) -> int:
    """Read the logs, and serve, write or print what they say."""
    state = LogState()
    logs = Logs(options.logs, state)
    if options.serve is not None:
        return serve_page(options, state, logs)
    spare_logs(options)
    snapshot = read_whole(state, logs)
    if options.html is not None:
        write_page(options.html, snapshot)
    if options.json:
        stdout.out(json.dumps(as_json(snapshot)))
    elif options.html is None:
        terminal.show(stdout, snapshot)
    return SUCCESS if options.html is not None or snapshot.verdict.state not in BAD else FAILURE


def serve_page(options: argparse.Namespace, state: LogState, logs: Logs) -> int:
    """Serve until a signal."""
    with (
        listen(options) as listener,
        contextlib.ExitStack() as stack,
        asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner,
    ):

        def begin() -> terminal.Watch:
            host = f"[{options.host}]" if ":" in options.host else options.host
            stdout.print(f"http://{host}:{listener.getsockname()[1]}", soft_wrap=True)
            stderr.print("Ctrl-C ends it.")
            return terminal.Watch(stack.enter_context(terminal.bar(stderr)), state.source)

        runner.run(serve(state, logs, listener, options.host, begin))
    return SUCCESS


def listen(options: argparse.Namespace) -> socket.socket:
    """Return the listener that was handed over, or one on the first free port of --serve; 0 is any."""
    if options.fd is not None:
        return socket.socket(fileno=options.fd)
    host, numbers, reason = options.host, options.serve, ""
    for number in numbers:
        try:
            return socket.create_server((host, number), family=_family(host))
        except OSError as error:
            reason = error.strerror or str(error)
    raise CannotError(f"Port {numbers[0]} of {host} cannot be had: {reason}. Name another with --serve PORT.")


def _family(host: str) -> socket.AddressFamily:
    return socket.AF_INET6 if ":" in host else socket.AF_INET


def spare_logs(options: argparse.Namespace) -> None:
    """Refuse to write the page over one of the logs."""
    target = options.html
    if target is not None and target.exists() and any(target.samefile(log) for log in options.logs):
        raise LogFileError(f"{target} is one of the logs. Name another file with --html.")


def read_whole(state: LogState, logs: Logs) -> Snapshot:
    """Read all that there is now, with a bar at a terminal."""
    with terminal.bar(stderr) as bar:
        watch = terminal.Watch(bar, state.source)
        for _ in logs.read():
            watch()
    logs.close()
    return state.snapshot(live=False)


def write_page(path: Path, snapshot: Snapshot) -> None:
    """Write the page as one file."""
    try:
        write_whole(path, self_contained(snapshot))
    except OSError as error:
        raise CannotError(f"{path} cannot be written: {error.strerror}.") from error


def as_json(snapshot: Snapshot) -> dict[str, object]:
    """Return what --json prints; the counts are of the last audit of everything, null without one."""
    whole = [audit for audit in snapshot.audits if audit.project_id is None]
    verdict, source = snapshot.verdict, snapshot.source
    return {
        "state": verdict.state,
        "title": verdict.title,
        "detail": verdict.detail,
        "may_go_on": snapshot.go_on.may,
        "reasons": snapshot.go_on.reasons,
        "verified_at": verdict.verified_at,
        "last_heartbeat_at": verdict.last_heartbeat_at,
        **{name: getattr(whole[-1], name) if whole else None for name in AUDIT_COUNTS},
        "dead_letters": snapshot.dead_letters_open,
        "files": source.files,
        "lines": source.lines,
        "broken": source.broken,
        "unknown": source.unknown,
    }
