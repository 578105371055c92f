"""A real PgBouncer between the product's processes and PostgreSQL, configured as docs/scaling.md asks for."""

import asyncio
import signal
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from pathlib import Path
from types import MappingProxyType

import asyncpg
from sqlalchemy.engine import URL, make_url

from deploy.local.guises import hand_over, unprivileged
from deploy.local.postgres import find_binaries
from deploy.local.service import LOOPBACK, Service, write_secret
from shared.settings import Settings
from tests.programs import needed

# The last two are what docs/scaling.md asks for: the time that PostgreSQL is away must not be prolonged, and
# who waits for a session of it must hear of it before we give up.
SETTINGS = {
    "pool_mode": "transaction",
    "default_pool_size": "20",
    "max_client_conn": "500",
    "auth_type": "scram-sha-256",
    "unix_socket_dir": "",
    "server_login_retry": "1",
    "query_wait_timeout": "3",
}


class PgBouncer(Service):
    """A PgBouncer on the loopback address, for every database of one server; it does not outlive us."""

    name = "PgBouncer"
    url_variable = "DATABASE_URL"
    stop_signal = signal.SIGTERM  # at once: sessions are cut

    def __init__(
        self, directory: Path, server: URL, settings: Mapping[str, str] = MappingProxyType({})
    ) -> None:
        """Take the URL of a superuser of the server, and settings that shall differ from ours."""
        super().__init__(directory)
        self._program = needed("pgbouncer")
        self._server = server
        self._settings = SETTINGS | dict(settings)

    @property
    def url(self) -> str:
        """The address of the server's own database."""
        return self.way_to(self._server)

    def way_to(self, url: URL) -> str:
        """Return the address that leads to this database of the server through us."""
        return url.set(host=LOOPBACK, port=self.port).render_as_string(hide_password=False)

    def prepare(self) -> None:
        """Be somebody else than root, as PgBouncer wants it too."""
        self.guise = unprivileged(find_binaries() / "initdb", self.directory)
        user, password = self._server.username, self._server.password
        write_secret(self.directory / "users", f'"{user}" "{password}"\n')
        hand_over(self.directory, self.guise.owner)

    def command(self, port: int) -> list[str]:
        """Write the configuration and return the command that reads it."""
        fixed = {
            "listen_addr": LOOPBACK,
            "listen_port": str(port),
            "auth_file": "users",
            "auth_user": str(self._server.username),  # asks the server for others' passwords
            "admin_users": str(self._server.username),
        }
        lines = [f"{name} = {value}" for name, value in (self._settings | fixed).items()]
        databases = f"[databases]\n* = host={self._server.host} port={self._server.port}\n"
        configuration = self.directory / "pgbouncer.ini"
        write_secret(configuration, "\n".join([databases, "[pgbouncer]", *lines, ""]))
        hand_over(self.directory, self.guise.owner)
        return [self._program, str(configuration)]

    def answers(self, port: int) -> bool:
        """Say whether it lets its administrator in; the server need not answer."""
        with ThreadPoolExecutor(1) as thread:  # the caller's may be running an event loop
            return thread.submit(asyncio.run, self._lets_in(port)).result()

    async def _lets_in(self, port: int) -> bool:
        try:
            console = await asyncpg.connect(
                host=LOOPBACK,
                port=port,
                user=self._server.username,
                password=self._server.password,
                database="pgbouncer",
                ssl="disable",
                timeout=1,
                statement_cache_size=0,
            )
        except (OSError, TimeoutError, asyncpg.PostgresError, asyncpg.InterfaceError):
            return False
        await console.close(timeout=1)
        return True


class Poolers:
    """A PgBouncer for each server that is asked for, started when it is."""

    def __init__(self, directory: Path, stack: ExitStack, settings: Mapping[str, str]) -> None:
        self._directory = directory
        self._stack = stack
        self._settings = settings
        self._poolers: dict[int | None, PgBouncer] = {}

    def way_to(self, database_url: str) -> dict[str, str]:
        """Return the variables by which a process reaches this database through a pooler."""
        url = make_url(database_url).set(drivername="postgresql")
        if url.port not in self._poolers:
            directory = self._directory / f"of {url.port}"
            self._poolers[url.port] = self._stack.enter_context(PgBouncer(directory, url, self._settings))
        return {"DATABASE_URL": self._poolers[url.port].way_to(url), "DATABASE_POOLER": "transaction"}

    def settings_through(self, settings: Settings) -> Settings:
        """Return the same settings, but for the way to the database."""
        way = self.way_to(settings.database_url.get_secret_value())
        return Settings.model_validate(
            settings.model_dump() | {name.lower(): value for name, value in way.items()}
        )


@contextmanager
def poolers(directory: Path, settings: Mapping[str, str] = MappingProxyType({})) -> Iterator[Poolers]:
    """Offer poolers, with settings that differ from ours, for as long as the block."""
    with ExitStack() as stack:
        yield Poolers(directory, stack, settings)
