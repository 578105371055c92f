"""What another terminal needs to reach this run, in a file that its shell reads."""

import os
import shlex
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from deploy.local.postgres import Postgres
from deploy.local.service import Service, write_secret
from deploy.local.welcome import Addresses


def search_path(services: Sequence[Service]) -> str:
    """Return the assignment that lets a shell find our `python`, and the `psql` that fits our server."""
    servers = [service for service in services if isinstance(service, Postgres) and service.has("psql")]
    directories = [Path(sys.executable).parent, *(server.binary("psql").parent for server in servers)]
    return f'PATH={":".join(shlex.quote(str(directory)) for directory in directories)}:"$PATH"'


@contextmanager
def left_for_others(
    variables: Path, services: Sequence[Service], addresses: Addresses, log: Path
) -> Iterator[None]:
    """Keep the file for as long as the block; only its owner can read it.

    Args:
        variables: what a shell reads with `. FILE`.
        services: those that we started; addresses that were given are not ours to write down.
        addresses: the programs'.
        log: the file of commands' log lines, which the dashboard reads.

    """
    values = {service.url_variable: service.url for service in services} | {
        "LOG_FILE": str(log),
        "API_URL": addresses.api,
        "DASHBOARD_URL": addresses.dashboard,
        "ADMIN_TOKEN": os.environ["ADMIN_TOKEN"],
    }
    assignments = [f"{name}={shlex.quote(value)}" for name, value in values.items()]
    write_secret(variables, "".join(f"export {line}\n" for line in (*assignments, search_path(services))))
    try:
        yield
    finally:
        variables.unlink(missing_ok=True)
