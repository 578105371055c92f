"""The command line of `python -m deploy.local`."""

import argparse
from collections.abc import Sequence
from pathlib import Path

LAST_PORT = 65_535

DESCRIPTION = """\
Run everything on this machine, without Docker: PostgreSQL, Valkey, the API and
the worker, with a sample project. Prints addresses and curl lines to try, then
one line for each event that the worker settles. Ctrl-C stops everything."""

EPILOG = """\
environment:
  DATABASE_URL     use this PostgreSQL, migrate it and put the sample into it
  REDIS_URL        use this Redis or Valkey

Whatever is not given is started from the Python wheels of `make venv`. The data
survives; delete the directory to begin anew. Two runs need two directories:
  python -m deploy.local --data /tmp/another --port 8100

exit status: 0 after Ctrl-C or SIGTERM, 1 when a part failed, 2 on wrong usage
or a variable that no process takes."""


def parse(words: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m deploy.local",
        description=DESCRIPTION,
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "--port", type=int, default=8000, help="the API's port, or the next free one (default: %(default)s)"
    )
    parser.add_argument("--data", type=Path, help="where the data lies (default: .local)")
    parser.add_argument(
        "--no-worker", action="store_true", help="start no worker: events wait, and a rollback is possible"
    )
    arguments = parser.parse_args(words)
    if not 1 <= arguments.port <= LAST_PORT:
        parser.error(f"--port must be between 1 and {LAST_PORT}")
    return arguments
