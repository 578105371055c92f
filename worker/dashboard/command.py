"""What the command does: read logs, and serve, write or print what they say."""

import argparse
import asyncio
import contextlib
import socket
from importlib.util import find_spec

import uvloop

from shared.process.orderly import FAILURE, SUCCESS, WRONG_USAGE, complain
from worker.command_line.console import print_json, stderr, stdout
from worker.command_line.writing import STDOUT, write_page
from worker.dashboard import terminal
from worker.dashboard.files import LogFileError, belongs_to
from worker.dashboard.log_state import LogState
from worker.dashboard.page_state import PageState
from worker.dashboard.reading import Logs
from worker.dashboard.rendering import self_contained
from worker.dashboard.server import serve

AUDIT_COUNTS = ("compared", "missing", "mismatched", "orphaned", "pending", "repaired")


class CannotError(Exception):
    """The command cannot do what was asked; the message says what to do next."""


def run(options: argparse.Namespace) -> int:
    try:
        return execute(options)
    except LogFileError as error:
        complain(str(error))
        return WRONG_USAGE
    except CannotError as error:
        complain(str(error))
        return FAILURE


def execute(options: argparse.Namespace) -> int:
    state = LogState()
    if options.serve is not None or options.html is not None:
        require_charts()
    if options.serve is not None:
        return serve_page(options, state, Logs(options.logs, state, live=True))
    spare_logs(options)
    page_state = read_whole(state, Logs(options.logs, state))
    if options.html is not None:
        write(options, page_state)
    if options.json:
        print_json(as_json(page_state))
    elif options.html is None:
        terminal.show(stdout, page_state)
    return SUCCESS if options.html is not None or page_state.go_on.may else FAILURE


def serve_page(options: argparse.Namespace, state: LogState, logs: Logs) -> int:
    with (
        listen(options) as listener,
        contextlib.ExitStack() as stack,
        asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner,
    ):

        def begin() -> terminal.ReadingBar:
            stdout.say(address_of(listener, options.host))
            stderr.say("Ctrl-C ends it.", *unread(state))
            return terminal.ReadingBar(stack.enter_context(terminal.bar(stderr)), state.source)

        runner.run(serve(state, logs, listener, names_of(options), begin))
    return SUCCESS


def require_charts() -> None:
    """Refuse a page, before any log is read, where what draws its charts is not installed."""
    if find_spec("plotly") is None:
        msg = "The page needs plotly, which is not installed: pip install plotly"
        raise CannotError(msg)


def listen(options: argparse.Namespace) -> socket.socket:
    """Return the listener that was handed over, or one on the first free port of --serve; 0 is any."""
    if options.fd is not None:
        return handed_over(options.fd)
    host, numbers, reason = options.host, options.serve, ""
    for number in numbers:
        try:
            return socket.create_server((host, number), family=_family(host))
        except OSError as error:
            reason = error.strerror or str(error)
        except UnicodeError:  # a name with two dots in a row, or a very long one
            raise CannotError(f"{host!r} is no address. Name one with --host.") from None
    raise CannotError(f"Port {numbers[0]} of {host} cannot be had: {reason}. Name another with --serve PORT.")


def address_of(listener: socket.socket, host: str) -> str:
    """Return where the page is, for a browser or, of a socket in the file system, for a proxy."""
    name = listener.getsockname()
    if not isinstance(name, tuple):
        return f"unix:{name}"
    return f"http://[{host}]:{name[1]}" if ":" in host else f"http://{host}:{name[1]}"


def handed_over(number: int) -> socket.socket:
    reason: str | None = "it does not listen"
    try:
        listener = socket.socket(fileno=number)
        if listener.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN):
            return listener
        listener.detach()
    except (OSError, ValueError, OverflowError) as error:
        reason = error.strerror if isinstance(error, OSError) else "no file descriptor"
    raise CannotError(f"--fd {number} is no socket that listens: {reason}.")


def names_of(options: argparse.Namespace) -> set[str]:
    """Return the names besides this machine's by which the page may be asked for, as a request has them."""
    return {as_asked_for(name) for name in (options.host, *options.host_name)}


def as_asked_for(name: str) -> str:
    """Return a name, with its port or without, as the Host of a request has it, without."""
    host, colon, port = name.rpartition(":")
    if colon and port.isdigit() and (":" not in host or host.endswith("]")):
        return host
    return f"[{name}]" if ":" in name and not name.startswith("[") else name


def _family(host: str) -> socket.AddressFamily:
    return socket.AF_INET6 if ":" in host else socket.AF_INET


def spare_logs(options: argparse.Namespace) -> None:
    """Refuse to write the page over one of the logs, or where rotation would take it for one."""
    target = options.html
    if target in {None, STDOUT}:
        return
    try:
        is_one = any(belongs_to(target, log) for log in options.logs)
    except OSError as error:
        raise CannotError(f"{target} cannot be written: {error.strerror}.") from error
    if is_one:
        raise LogFileError(f"{target} is one of the logs, or would be. Name another file with --html.")


def read_whole(state: LogState, logs: Logs) -> PageState:
    with terminal.bar(stderr) as bar:
        watch = terminal.ReadingBar(bar, state.source)
        for _ in logs.read():
            watch()
    logs.close()
    stderr.say(*unread(state))
    return state.page_state(live=False)


def unread(state: LogState) -> list[str]:
    return [f"Not read: {what}." for what in state.source.unread]


def write(options: argparse.Namespace, page_state: PageState) -> None:
    try:
        write_page(options.html, self_contained(page_state))
    except OSError as error:
        raise CannotError(f"{options.html} cannot be written: {error.strerror}.") from error


def as_json(page_state: PageState) -> dict[str, object]:
    """Return what --json prints; the counts are of the last audit of everything, null without one."""
    whole = [audit for audit in page_state.audits if audit.project_id is None]
    verdict, source, cutover = page_state.verdict, page_state.source, page_state.cutover
    return {
        "state": verdict.state,
        "title": verdict.title,
        "detail": verdict.detail,
        "may_go_on": page_state.go_on.may,
        "reasons": page_state.go_on.reasons,
        "next_steps": verdict.next_steps,
        "verified_at": verdict.verified_at,
        "last_heartbeat_at": verdict.last_heartbeat_at,
        **{name: getattr(whole[-1], name) if whole else None for name in AUDIT_COUNTS},
        "dead_letters": page_state.dead_letters_open,
        "phase": None if cutover is None else cutover.phase,
        "phase_since": None if cutover is None else cutover.since,
        "going_back_lost": None if cutover is None else cutover.lost,
        "files": source.files,
        "lines": source.lines,
        "broken": source.broken,
        "unknown": source.unknown,
        "unread": source.unread,
    }
