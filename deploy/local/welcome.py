"""What `make run` prints when everything is up: addresses, and lines to paste into another terminal."""

import shlex
import sys
from collections.abc import Sequence
from pathlib import Path

from deploy.local.postgres import USER, Postgres
from deploy.local.service import LOOPBACK, Service

# The names are those of sample.sql.
COLLECTIONS = "/projects/sample-project/collections"
ROWS = """\
SELECT collection_id, research_context, updated_at FROM project_collections \
WHERE project_id = 'sample-project' ORDER BY created_at"""


def curl(address: str, method: str = "GET", body: str | None = None) -> str:
    """Return the line that sends one request of the sample project's owner."""
    headers = ["-H 'User-ID: sample-owner'"]
    if body is not None:
        headers.append(f"-H 'Content-Type: application/json' -d '{body}'")
    return f"curl -sS -X {method} {address} {' '.join(headers)}; echo"


def psql(server: Postgres) -> str:
    """Return the line that shows the sample's rows of project_collections."""
    program = shlex.quote(str(server.binary("psql")))
    address = f"-h {LOOPBACK} -p {server.port} -U {USER}"
    return f'PGPASSWORD={server.password} {program} {address} -P pager=off -c "{ROWS}"'


def python() -> str:
    """Return the line that does the same without psql, with the DATABASE_URL of its environment."""
    connection = "run(asyncpg.connect(os.environ['DATABASE_URL'].replace('+asyncpg', '')))"
    rows = f'*run({connection}.fetch(\\"{ROWS}\\"))'
    code = f"import asyncio, asyncpg, os; run = asyncio.Runner().run; print({rows}, sep='\\n')"
    return f'{shlex.quote(sys.executable)} -c "{code}"'


def command(*words: str) -> str:
    """Return the line that runs one of the project's commands from its checkout."""
    return f"{shlex.quote(sys.executable)} -m {' '.join(words)}"


def look(services: Sequence[Service]) -> str:
    """Return the line that fits the database in use."""
    for service in services:
        if isinstance(service, Postgres) and service.has("psql"):
            return psql(service)
    return python()


def welcome(api: str, dashboard: str, log: Path, services: Sequence[Service]) -> str:
    """Return the text to print.

    Args:
        api: the API's address.
        dashboard: the dashboard's.
        log: the file of commands' log lines, which the dashboard reads.
        services: those that we started. Addresses that were given are known to the reader, and may
            hold a password that is not ours to show.

    """
    collections = api + COLLECTIONS
    variables = "".join(f"export {service.url_variable}={service.url}\n" for service in services)
    variables += f"export LOG_FILE={shlex.quote(str(log))}\n"
    return f"""
API            {api}
documentation  {api}/docs
dashboard      {dashboard}
Ctrl-C         stops everything

In another terminal, for the project's other commands:
{variables}
# List, create, update the one that has no row in project_collections, delete:
{curl(collections)}
{curl(collections, "POST", '{"collection_name": "New", "description": "Made with curl"}')}
{curl(collections + "/sample-unlinked", "PUT", '{"description": "Updated with curl"}')}
{curl(collections + "/sample-unwanted", "DELETE")}

# What project_collections holds now:
{look(services)}

# Bring over what was there before, and prove that both tables agree:
{command("worker.backfill", "--wait")}
{command("worker.audit")}

Each event that the worker settles, as it happens:"""
