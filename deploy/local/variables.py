"""What another terminal needs to reach this run: a file that its shell reads, and one that psql reads."""

import shlex
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from deploy.local.postgres import USER, Postgres
from deploy.local.service import LOOPBACK, Service, write_secret
from deploy.local.welcome import Addresses, Left


def search_path(services: Sequence[Service]) -> str:
    """Return the assignment that lets a shell find our `python`, and the `psql` that fits our server."""
    servers = [service for service in services if isinstance(service, Postgres) and service.has("psql")]
    directories = [Path(sys.executable).parent, *(server.binary("psql").parent for server in servers)]
    return f'PATH={":".join(shlex.quote(str(directory)) for directory in directories)}:"$PATH"'


def passwords(services: Sequence[Service]) -> str:
    """Return the lines of libpq's password file; no password of ours holds what would have to be escaped."""
    servers = [service for service in services if isinstance(service, Postgres)]
    return "".join(f"{LOOPBACK}:{server.port}:*:{USER}:{server.password}\n" for server in servers)


@contextmanager
def left_for_others(
    left: Left, services: Sequence[Service], addresses: Addresses, log: Path
) -> Iterator[None]:
    """Keep the files for as long as the block; only their owner can read them.

    Args:
        left: what a shell reads with `. FILE`, and what psql reads where PGPASSFILE names it.
        services: those that we started; addresses that were given are not ours to write down.
        addresses: the programs'.
        log: the file of commands' log lines, which the dashboard reads.

    """
    values = {service.url_variable: service.url for service in services} | {
        "LOG_FILE": str(log),
        "API_URL": addresses.api,
        "DASHBOARD_URL": addresses.dashboard,
    }
    assignments = [f"{name}={shlex.quote(value)}" for name, value in values.items()]
    write_secret(
        left.variables, "".join(f"export {line}\n" for line in (*assignments, search_path(services)))
    )
    write_secret(left.passwords, passwords(services))
    try:
        yield
    finally:
        for file in left:
            file.unlink(missing_ok=True)
