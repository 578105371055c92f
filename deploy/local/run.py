"""`make run`: the whole system in one terminal, from the databases to the worker's live lines."""

import asyncio
import json
import os
import secrets
import signal
import socket
from collections.abc import Awaitable, Sequence
from contextlib import ExitStack
from http import HTTPStatus
from http.client import HTTPConnection, HTTPException
from pathlib import Path
from typing import NamedTuple, cast

import asyncpg

from deploy.local.errors import LocalError
from deploy.local.options import LAST_PORT
from deploy.local.postgres import Postgres
from deploy.local.programs import SHOWN_LINES, Screen, follow, launch, running
from deploy.local.service import LOOPBACK, Service, hold
from deploy.local.valkey import Valkey
from deploy.local.variables import left_for_others
from deploy.local.welcome import Addresses, welcome
from shared.postgres.database import create_engine
from shared.process.printable import printable
from shared.settings import Settings, load_settings

SAMPLE = Path(__file__).with_name("sample.sql")
READY_PATIENCE_SECONDS = 60
WRITERS = ("api", "worker", "commands")  # of log lines


def require_what_is_given() -> None:
    """Read the settings as they will be, with any address in place of one that is not given.

    Raises:
        SettingsError: one of them is wrong. Nothing was started for it.

    """
    ours = {"database_url": "postgresql://localhost", "redis_url": "redis://localhost"}
    load_settings(Settings, **{name: url for name, url in ours.items() if not os.environ.get(name.upper())})


def start_services(data: Path, stack: ExitStack) -> list[Service]:
    services: list[Service] = []
    for kind in (Postgres, Valkey):
        if not os.environ.get(kind.url_variable):
            service: Postgres | Valkey = kind(data / kind.name.lower())
            stack.enter_context(service)
            os.environ[kind.url_variable] = service.url
            services.append(service)
    return services


async def migrate() -> None:
    alembic = await launch("INT", "alembic", "upgrade", "head")
    output, _ = await alembic.communicate()
    if alembic.returncode != 0:
        end = output.decode(errors="replace").splitlines()[-SHOWN_LINES:]
        raise LocalError("\n  ".join(("alembic upgrade head failed. Its last lines:", *end)))


async def examined() -> str:
    """Return in a line what the preflight found, and after it a line for each thing that will bite."""
    preflight = await launch("INT", "worker.preflight", "--json")
    output, _ = await preflight.communicate()
    try:
        found = json.loads(output.splitlines()[-1])["checks"]
    except (ValueError, LookupError):
        return f"could not look (status {preflight.returncode}); python -m worker.preflight says why"
    bites = [check for check in found if check["state"] != "ok"]
    counts = f"{len(found) - len(bites)} ok" + (f", {len(bites)} not" if bites else "")
    return "\n".join((counts, *(f"  {check['state']}: {printable(check['sentence'])}" for check in bites)))


async def insert_sample(settings: Settings) -> None:
    engine = create_engine(settings, application_name="make run", pool_size=1, statement_timeout_seconds=30)
    try:
        async with engine.connect() as connection:
            pooled = await connection.get_raw_connection()
            driver = cast("asyncpg.Connection", pooled.driver_connection)
            await driver.execute(SAMPLE.read_text(encoding="utf-8"))
    finally:
        await engine.dispose()


def listen(first_port: int) -> socket.socket:
    """Listen on the first free port from this one on; it stays ours from now on."""
    for port in range(first_port, LAST_PORT + 1):
        listener = socket.socket()
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        try:
            listener.bind((LOOPBACK, port))
            listener.listen()
        except OSError:
            listener.close()
        else:
            return listener
    raise LocalError(f"There is no free port from {first_port} on. Choose a lower one with --port.")


class Listeners(NamedTuple):
    """The sockets on which our programs serve."""

    api: socket.socket
    dashboard: socket.socket

    @property
    def addresses(self) -> Addresses:
        return Addresses(address(self.api), address(self.dashboard))


def address(listener: socket.socket) -> str:
    return f"http://{LOOPBACK}:{listener.getsockname()[1]}"


def is_ready(port: int) -> bool:
    connection = HTTPConnection(LOOPBACK, port, timeout=3)
    try:
        connection.request("GET", "/readyz")
        return connection.getresponse().status == HTTPStatus.OK
    except (OSError, HTTPException):
        return False
    finally:
        connection.close()


async def readiness(port: int) -> None:
    """Return when the API can serve requests.

    Raises:
        LocalError: it takes too long.

    """
    try:
        async with asyncio.timeout(READY_PATIENCE_SECONDS):
            while not await asyncio.to_thread(is_ready, port):  # noqa: ASYNC110 - it is another process
                await asyncio.sleep(0.05)
    except TimeoutError:
        raise LocalError(f"The API did not become ready within {READY_PATIENCE_SECONDS} s.") from None


def log_files(data: Path) -> dict[str, Path]:
    """Return where the API, the worker and commands write their lines; the files are there."""
    given = os.environ.get("LOG_FILE")
    logs = {name: Path(given) if given else data / "logs" / f"{name}.log" for name in WRITERS}
    for log in logs.values():
        log.parent.mkdir(parents=True, exist_ok=True)
        log.touch()
    return logs


async def end_of_a_service(services: Sequence[Service]) -> None:
    while True:
        for service in services:
            service.check()
        await asyncio.sleep(1)


async def first_of(*awaited: Awaitable[object]) -> None:
    """Return when the first of these is done; raise what it raised."""
    tasks = [asyncio.ensure_future(thing) for thing in awaited]
    done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    for task in done:
        task.result()


def programs_of(
    listeners: Listeners, logs: dict[str, Path], *, with_worker: bool
) -> dict[str, tuple[str, ...]]:
    api, dashboard = (str(listener.fileno()) for listener in listeners)
    uvicorn = ("uvicorn", "api.main:app", "--fd", api, "--no-access-log")
    return {
        "api": (*uvicorn, "--timeout-graceful-shutdown", "3"),
        **({"worker": ("worker",)} if with_worker else {}),
        "dashboard": ("worker.dashboard", *map(str, logs.values()), "--serve", "--fd", dashboard),
    }


async def run(data: Path, first_port: int, *, with_worker: bool = True) -> None:
    """Run everything until SIGINT or SIGTERM, and leave no process behind.

    Args:
        data: the directory in which all of it lies.
        first_port: the API's, unless it is taken; then the next one that is free.
        with_worker: without it events wait, and a rollback may be done.

    Raises:
        LocalError: a part could not be started, or ended without being asked to.
        SettingsError: a variable holds what no process takes.

    """
    require_what_is_given()
    interrupted = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, interrupted.set)
    with ExitStack() as stack:
        stack.enter_context(hold(data))
        print(f"Starting; the data lies in {data}", flush=True)
        os.environ.setdefault("ADMIN_TOKEN", secrets.token_urlsafe(24))
        services = start_services(data, stack)
        settings = load_settings(Settings)
        await migrate()
        await insert_sample(settings)
        api = stack.enter_context(listen(first_port))
        dashboard = stack.enter_context(listen(api.getsockname()[1] + 1))
        await serve(services, data, Listeners(api, dashboard), interrupted, with_worker=with_worker)
    print("Stopped.")


def followed(logs: dict[str, Path], screen: Screen) -> list[Awaitable[None]]:
    """Follow the commands' log where it is theirs alone; the programs' lines come by their output."""
    return [] if logs["commands"] == logs["worker"] else [follow(logs["commands"], screen)]


async def serve(
    services: Sequence[Service],
    data: Path,
    listeners: Listeners,
    interrupted: asyncio.Event,
    *,
    with_worker: bool,
) -> None:
    """Run our programs, greet when they are ready, and show events until interrupted."""
    logs, screen = log_files(data), Screen()
    programs = programs_of(listeners, logs, with_worker=with_worker)
    sockets = tuple(listener.fileno() for listener in listeners)
    async with running(programs, data, logs, screen, pass_fds=sockets) as watches:
        end = asyncio.create_task(interrupted.wait())
        trouble = asyncio.create_task(end_of_a_service(services))
        ready = asyncio.gather(readiness(listeners.api.getsockname()[1]), examined())
        await first_of(ready, end, trouble, *watches)
        if not interrupted.is_set():
            variables = data / "env"
            with left_for_others(variables, services, listeners.addresses, logs["commands"]):
                greeting = welcome(
                    listeners.addresses, variables, services, ready.result()[1], with_worker=with_worker
                )
                print(greeting, flush=True)
                await first_of(end, trouble, *watches, *followed(logs, screen))
        print("\nStopping.", flush=True)
