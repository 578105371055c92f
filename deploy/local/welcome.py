"""What `make run` prints when everything is up: addresses, and lines to paste into another terminal."""

import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from deploy.local.postgres import Postgres
from deploy.local.service import Service

# The names are those of sample.sql.
COLLECTIONS = "/projects/sample-project/collections"
ROWS = """\
SELECT collection_id, research_context, updated_at FROM project_collections \
WHERE project_id = 'sample-project' ORDER BY created_at"""

LOOK = 'python -c "from deploy.local.look import show; show()"'
EVENTS = "What happens, a line for each event that the worker settles:"
NO_EVENTS = "No worker runs: what is written waits. To start one, in the other terminal: python -m worker"


class Addresses(NamedTuple):
    """Where the programs are reached, as a browser wants it."""

    api: str
    dashboard: str


def curl(path: str, method: str = "GET", body: str | None = None) -> str:
    headers = ["-H 'User-ID: sample-owner'"]
    if body is not None:
        headers.append(f"-H 'Content-Type: application/json' -d '{body}'")
    return f'curl -sS -X {method} "$API_URL{path}" {" ".join(headers)}; echo'


def look(services: Sequence[Service]) -> str:
    """Return the line that shows what the target holds, with psql where ours is there."""
    has_psql = any(isinstance(service, Postgres) and service.has("psql") for service in services)
    return f'psql "$DATABASE_URL" -P pager=off -c "{ROWS}"' if has_psql else LOOK


def shortest(file: Path) -> str:
    """Return the path as one types it where this run was started."""
    return str(file.relative_to(Path.cwd())) if file.is_relative_to(Path.cwd()) else str(file)


def welcome(
    addresses: Addresses, variables: Path, services: Sequence[Service], found: str, *, with_worker: bool
) -> str:
    """Return the text to print. It holds no secret: it is read over shoulders, and kept in logs.

    Args:
        addresses: the programs'.
        variables: the file for other terminals: see `variables.py`.
        services: those that we started. Addresses that were given are known to the reader, and may
            hold a password that is not ours to show.
        found: what the preflight found.
        with_worker: whether one runs.

    """
    return f"""
API            {addresses.api}
documentation  {addresses.api}/docs
console        {addresses.api}/admin/console
dashboard      {addresses.dashboard}
preflight      {found}
Ctrl-C         stops everything

In another terminal, first of all; after that, `echo "$ADMIN_TOKEN"` shows the console's token:
. {shlex.quote(shortest(variables))}

# List, create, update the one that has no row in project_collections, delete:
{curl(COLLECTIONS)}
{curl(COLLECTIONS, "POST", '{"collection_name": "New", "description": "Made with curl"}')}
{curl(COLLECTIONS + "/sample-unlinked", "PUT", '{"description": "Updated with curl"}')}
{curl(COLLECTIONS + "/sample-unwanted", "DELETE")}

# What project_collections holds now:
{look(services)}

# Where the migration stands and what to type next; bring over what was there before; prove that both agree:
python -m worker.status
python -m worker.backfill --wait
python -m worker.audit

{EVENTS if with_worker else NO_EVENTS}"""
