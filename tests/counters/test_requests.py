"""How often a request goes to PostgreSQL and back: a user waits for each time."""

import asyncpg
import httpx

from api.main import create_app
from deploy.local.postgres import Postgres
from shared.settings import Settings
from tests.api.clients import ALL, OWNER, SEEDED, STRANGER, create, started
from tests.api.recording import NAMES, seed
from tests.counters.wire import Wire, counted

NEW = {"collection_name": "x"}
BY_MAIL = {"User-ID": NAMES["OWNER_EMAIL"]}
MINE = "of a collection of its own"

# A write begins, may the caller?, changes the row, logs the activity, appends the event, and commits.
REQUESTS = [
    ("POST", ALL, OWNER, NEW, 6),
    ("PUT", MINE, OWNER, {**NEW, "color": "#000000"}, 7),
    ("PUT", MINE, OWNER, NEW, 6),
    ("DELETE", MINE, OWNER, None, 7),
    ("PUT", SEEDED, STRANGER, NEW, 3),
    ("PUT", SEEDED, OWNER, {"color": "red"}, 0),
    ("GET", ALL, OWNER, None, 4),
    ("GET", ALL, BY_MAIL, None, 5),
    ("GET", f"{SEEDED}/sync", OWNER, None, 4),
]


async def trips(client: httpx.AsyncClient, wire: Wire) -> list[int]:
    """Send each request once; return how many round trips each took."""
    mine = await create(client)
    taken = []
    for method, path, caller, body, _ in REQUESTS:
        wire.sent.clear()
        await client.request(method, mine if path == MINE else path, headers=caller, json=body)
        taken.append(wire.round_trips)
    return taken


async def test_each_request_takes_so_many_round_trips_and_no_other_number(
    postgres: Postgres, settings: Settings, sql: asyncpg.Connection
) -> None:
    await seed(sql)
    async with counted(postgres, settings) as (wire, along_it), started(create_app(along_it)) as client:
        first, then = await trips(client, wire), await trips(client, wire)
    assert sum(first) > sum(then)  # a connection prepares each statement once
    assert then == [expected for *_, expected in REQUESTS]
