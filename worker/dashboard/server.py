"""The page, live: served to this machine, and the log read on beside it."""

import asyncio
import contextlib
import hashlib
import signal
import socket
import time
from collections.abc import Callable, Iterator
from typing import Final

import uvicorn
from starlette.applications import Starlette
from starlette.datastructures import Headers, MutableHeaders
from starlette.requests import Request
from starlette.responses import HTMLResponse, PlainTextResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from shared.page_headers import page_headers
from shared.process.printable import printable
from worker.dashboard import page
from worker.dashboard.log_state import LogState
from worker.dashboard.reading import Logs
from worker.dashboard.rendering import POLICY, served, to_json

LOG_POLL_SECONDS: Final = 0.2  # for new lines
PAGE_STATE_SECONDS: Final = 0.5  # the age from which a request has it made anew
SHUTDOWN_SECONDS: Final = 2
NOT_SERVED: Final = """\
The name {host!r} is not served here: a page of another site could have led to it. Let the proxy ask for
"Host: localhost", or start the dashboard with --host-name and that name.
"""
LONGEST_HOST: Final = 200
LOOPBACK_NAMES: Final = {"127.0.0.1", "localhost", "[::1]"}
HEADERS: Final = page_headers(POLICY)


class PageStates:
    """The page's present state as JSON: made when it is asked for, and at most twice a second."""

    def __init__(self, state: LogState) -> None:
        self._state = state
        self._made_at = 0.0
        self._body = b""
        self._tag = ""

    def latest(self) -> tuple[bytes, str]:
        """Return the JSON and its entity tag, which stays the same while nothing but the time changes."""
        if not self._body or time.monotonic() - self._made_at >= PAGE_STATE_SECONDS:
            self._body = to_json(self._state.page_state(live=True)).encode()
            self._tag = f'"{hashlib.sha256(_timeless(self._body)).hexdigest()[:32]}"'
            self._made_at = time.monotonic()
        return self._body, self._tag


def _timeless(body: bytes) -> bytes:
    return body.partition(b",")[2]  # without `made_at`, its first field


class Guard:
    """Answers only requests that name this machine, and sends the headers of HEADERS with every answer.

    A page of another site whose name was made to lead here (DNS rebinding) names that site. `names`:
    hosts, without ports.
    """

    def __init__(self, app: ASGIApp, names: set[str]) -> None:
        self._app = app
        self._names = names

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def send_guarded(message: Message) -> None:
            if message["type"] == "http.response.start":
                MutableHeaders(scope=message).update(HEADERS)
            await send(message)

        app: ASGIApp = self._app
        if scope["type"] == "http" and (host := _host(Headers(scope=scope))) not in self._names:
            app = PlainTextResponse(NOT_SERVED.format(host=printable(host, LONGEST_HOST)), 421)
        await app(_at_the_root(scope), receive, send_guarded)


def _at_the_root(scope: Scope) -> Scope:
    """Leave out what a proxy has before our paths, whether it passes that on or not."""
    return {**scope, "path": f"/{scope['path'].rpartition('/')[2]}"} if scope["type"] == "http" else scope


def _host(headers: Headers) -> str:
    host = headers.get("host", "").lower()
    name, colon, port = host.rpartition(":")
    return name if colon and port.isdigit() else host


def application(state: LogState, names: set[str]) -> ASGIApp:
    """Return the application that serves the page of a log; `names`: by which others may ask for it."""
    page_states = PageStates(state)

    async def index(_: Request) -> Response:
        return HTMLResponse(served(state.page_state(live=True)), headers={"Cache-Control": "no-store"})

    async def page_state(request: Request) -> Response:
        body, tag = page_states.latest()
        headers = {"ETag": tag, "Cache-Control": "no-store"}
        if tag in request.headers.get("if-none-match", ""):
            return Response(status_code=304, headers=headers)
        return Response(body, media_type="application/json", headers=headers)

    routes = [
        Route("/", index),
        Route("/snapshot.json", page_state),
        Route("/plotly.js", _library),
        Route("/style.css", _text(page.style, "text/css")),
        Route("/script.js", _text(page.script, "text/javascript")),
    ]
    return Guard(Starlette(routes=routes), LOOPBACK_NAMES | {name.lower() for name in names})


def _text(content: Callable[[], str], media_type: str) -> Callable[[Request], Response]:
    def answer(_: Request) -> Response:
        return Response(content(), media_type=media_type, headers={"Cache-Control": "no-cache"})

    return answer


def _library(request: Request) -> Response:
    """Serve the charts' library; a new version of it needs a new start of the server."""
    headers = {"Cache-Control": "max-age=86400, immutable", "Vary": "Accept-Encoding"}
    if "gzip" not in request.headers.get("accept-encoding", ""):
        return Response(page.plotly(), media_type="text/javascript", headers=headers)
    headers["Content-Encoding"] = "gzip"
    return Response(page.packed_plotly(), media_type="text/javascript", headers=headers)


class OurServer(uvicorn.Server):
    """A server that leaves signals to us: uvicorn's would end the process by the signal, not with 0."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


async def serve(
    state: LogState,
    logs: Logs,
    listener: socket.socket,
    names: set[str],
    begin: Callable[[], Callable[[], None]],
) -> None:
    """Serve the page and read on until SIGINT or SIGTERM.

    Args:
        state: what the logs are folded into.
        logs: what is read, first the old part of it, then what is appended.
        listener: bound already.
        names: hosts, besides this machine, that a request may name.
        begin: called once a signal would end it; what it returns is called after each chunk of the old part.

    """
    config = uvicorn.Config(
        application(state, names),
        access_log=False,
        lifespan="off",
        log_config=None,
        server_header=False,
        timeout_graceful_shutdown=SHUTDOWN_SECONDS,
        ws="none",
    )
    server = OurServer(config)
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, lambda: setattr(server, "should_exit", True))
    on_chunk = begin()
    async with asyncio.TaskGroup() as group:
        follower = group.create_task(_follow(logs, on_chunk))
        await server.serve(sockets=[listener])
        follower.cancel()


async def _follow(logs: Logs, on_chunk: Callable[[], None]) -> None:
    for _ in logs.read():
        on_chunk()
        await asyncio.sleep(0)
    while True:
        await asyncio.sleep(LOG_POLL_SECONDS)
        logs.look()
        for _ in logs.read():
            await asyncio.sleep(0)
