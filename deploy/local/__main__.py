"""`python -m deploy.local`: what `make run` runs."""

import argparse
import asyncio
import sys
from pathlib import Path

from deploy.local.errors import LocalError
from deploy.local.programs import ROOT
from deploy.local.run import LAST_PORT, run
from shared.settings import SettingsError

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

exit status: 0 after Ctrl-C or SIGTERM, 1 when a part failed, 2 on wrong usage."""


def main() -> int:
    """Run everything and return the exit status."""
    parser = argparse.ArgumentParser(
        prog="python -m deploy.local",
        description=DESCRIPTION,
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "--port", type=int, default=8000, help="the API's port, or the next free one (default: %(default)s)"
    )
    parser.add_argument(
        "--data", type=Path, default=ROOT / ".local", help="where the data lies (default: .local)"
    )
    parser.add_argument(
        "--no-worker", action="store_true", help="start no worker: events wait, and a rollback is possible"
    )
    arguments = parser.parse_args()
    if not 1 <= arguments.port <= LAST_PORT:
        parser.error(f"--port must be between 1 and {LAST_PORT}")
    try:
        asyncio.run(run(arguments.data.absolute(), arguments.port, with_worker=not arguments.no_worker))
    except (LocalError, SettingsError) as error:
        print(f"\n{error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
