"""What `make run` prints when everything is up: addresses, and lines to paste into another terminal."""

import shlex
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from deploy.local.postgres import USER, Postgres
from deploy.local.service import LOOPBACK, Service

# The names are those of sample.sql.
COLLECTIONS = "/projects/sample-project/collections"
ROWS = """\
SELECT collection_id, research_context, updated_at FROM project_collections \
WHERE project_id = 'sample-project' ORDER BY created_at"""


EVENTS = "Each event that the worker settles, as it happens:"
NO_EVENTS = "No worker runs: what is written waits. To start one, in the other terminal: python -m worker"


class Left(NamedTuple):
    """The files that a run leaves for other terminals; only their owner can read them."""

    variables: Path  # for a shell
    passwords: Path  # for libpq


class Addresses(NamedTuple):
    """Where the programs are reached, as a browser wants it."""

    api: str
    dashboard: str


def curl(address: str, method: str = "GET", body: str | None = None) -> str:
    headers = ["-H 'User-ID: sample-owner'"]
    if body is not None:
        headers.append(f"-H 'Content-Type: application/json' -d '{body}'")
    return f"curl -sS -X {method} {address} {' '.join(headers)}; echo"


def psql(server: Postgres, passwords: Path) -> str:
    program = shlex.quote(str(server.binary("psql")))
    address = f"-h {LOOPBACK} -p {server.port} -U {USER}"
    return f'PGPASSFILE={shlex.quote(str(passwords))} {program} {address} -P pager=off -c "{ROWS}"'


def python() -> str:
    """Return the line that does the same without psql, with the DATABASE_URL of its environment."""
    code = f"from deploy.local.look import rows; print(*rows(\\\"{ROWS}\\\"), sep='\\n')"
    return f'{shlex.quote(sys.executable)} -c "{code}"'


def command(*words: str) -> str:
    return f"{shlex.quote(sys.executable)} -m {' '.join(words)}"


def look(services: Sequence[Service], passwords: Path) -> str:
    for service in services:
        if isinstance(service, Postgres) and service.has("psql"):
            return psql(service, passwords)
    return python()


def welcome(addresses: Addresses, left: Left, services: Sequence[Service], *, with_worker: bool) -> str:
    """Return the text to print. It holds no password: it is read over shoulders, and kept in logs.

    Args:
        addresses: the programs'.
        left: the files for other terminals: see `variables.py`.
        services: those that we started. Addresses that were given are known to the reader, and may
            hold a password that is not ours to show.
        with_worker: whether one runs.

    """
    collections = addresses.api + COLLECTIONS
    return f"""
API            {addresses.api}
documentation  {addresses.api}/docs
dashboard      {addresses.dashboard}
Ctrl-C         stops everything

In another terminal, for the project's other commands and docs/tutorial.md:
. {shlex.quote(str(left.variables))}

# List, create, update the one that has no row in project_collections, delete:
{curl(collections)}
{curl(collections, "POST", '{"collection_name": "New", "description": "Made with curl"}')}
{curl(collections + "/sample-unlinked", "PUT", '{"description": "Updated with curl"}')}
{curl(collections + "/sample-unwanted", "DELETE")}

# What project_collections holds now:
{look(services, left.passwords)}

# Look for what would bite, bring over what was there before, and prove that both tables agree:
{command("worker.preflight")}
{command("worker.backfill", "--wait")}
{command("worker.audit")}

{EVENTS if with_worker else NO_EVENTS}"""
