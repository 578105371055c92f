"""A program that starts both services, says so in one JSON line, and waits until its stdin ends.

Each start leaves a row in PostgreSQL, so that `starts` counts them.
"""

import asyncio
import json
import os
import sys
from pathlib import Path

import asyncpg

from deploy.local.errors import LocalError
from deploy.local.postgres import Postgres
from deploy.local.valkey import Valkey


async def count_start(url: str) -> int:
    connection = await asyncpg.connect(url, ssl="disable")
    await connection.execute("CREATE TABLE IF NOT EXISTS starts (); INSERT INTO starts DEFAULT VALUES")
    count: int = await connection.fetchval("SELECT count(*) FROM starts")
    await connection.close()
    return count


def main() -> None:
    directory = Path(sys.argv[1])
    try:
        with Postgres(directory / "postgresql") as postgres, Valkey(directory / "valkey") as valkey:
            started = {
                "pid": os.getpid(),
                "servers": [postgres.pid, valkey.pid],
                "binaries": str(postgres.binary("postgres").parent),
                "guise": postgres.guise.description,
                "starts": asyncio.run(count_start(postgres.url)),
            }
            sys.stdout.write(json.dumps(started) + "\n")
            sys.stdout.flush()
            sys.stdin.read()
    except LocalError as error:
        sys.exit(str(error))


if __name__ == "__main__":
    main()
