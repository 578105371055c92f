"""A server with logical decoding, a real Debezium beside it, and the order of commits as the WAL has it."""

import asyncio
import json
import re
import subprocess
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import asyncpg
import pytest
from sqlalchemy.engine import make_url

from benchmarks.peers.environments import KEPT, python_with
from deploy.local.children import tied_to_us
from deploy.local.postgres import Postgres
from tests.conftest import migrate
from tests.legacy_rows import seed
from tests.programs import needed

HERE = Path(__file__).parent
SHIPPED = HERE.parents[1] / "deploy" / "kafka"
CONNECTOR = SHIPPED / "connector.json"
REPLICATION = SHIPPED / "replication.sql"
PASSWORD = "of a throw-away server"
READ_WITHIN_SECONDS = 90
# All that may differ from the file: the server, the login, and where Kafka Connect keeps offsets.
MAY_DIFFER = re.compile(r"database\.(hostname|port|dbname|user|password|sslmode)|offset\.(storage|flush).*")
COMMIT = re.compile(r"tx:\s+(\d+), lsn: \S+, .*desc: COMMIT ")
# Each event, with its transaction, as that knew it itself. The worker deletes from the outbox only.
REMEMBER = """
    CREATE TABLE remembered (
        id bigint PRIMARY KEY, aggregate_id text NOT NULL, event_type text NOT NULL, source text NOT NULL,
        payload jsonb NOT NULL, xid bigint NOT NULL DEFAULT pg_current_xact_id()::text::bigint
    );
    CREATE FUNCTION remember() RETURNS trigger LANGUAGE plpgsql AS $$
    BEGIN
        INSERT INTO remembered (id, aggregate_id, event_type, source, payload)
        VALUES (NEW.id, NEW.aggregate_id, NEW.event_type, NEW.source, NEW.payload);
        RETURN NULL;
    END $$;
    CREATE TRIGGER remember AFTER INSERT ON outbox_events FOR EACH ROW EXECUTE FUNCTION remember();
"""


@pytest.fixture(scope="session")
def debezium_python() -> Path:
    """The interpreter that has Debezium; installed at the first run, which takes a minute."""
    needed("java")  # of version 17 or newer
    return asyncio.run(python_with(HERE / "requirements.txt", KEPT.with_name("debezium")))


@pytest.fixture
def logical(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Postgres]:
    """A migrated server of its own that writes what logical decoding needs, and keeps its WAL."""
    directory = tmp_path_factory.mktemp("logical") / "postgres"
    settings = {"fsync": "off", "wal_level": "logical", "wal_keep_size": "4GB"}
    with Postgres(directory, settings=settings) as server:
        migrate(server.url)
        yield server


@pytest.fixture
async def prepared(logical: Postgres) -> Postgres:
    """The server with the shipped publication and role, a login for Debezium, and a memory of all events."""
    sql = await asyncpg.connect(logical.url)
    await seed(sql)
    await sql.execute(REPLICATION.read_text())
    await sql.execute(REMEMBER)
    await sql.execute(
        f"CREATE ROLE sync_debezium LOGIN REPLICATION PASSWORD '{PASSWORD}'"
        " IN ROLE collection_sync_replication"
    )
    await sql.close()
    return logical


@pytest.fixture
async def session(prepared: Postgres) -> AsyncIterator[asyncpg.Connection]:
    connection = await asyncpg.connect(prepared.url)
    yield connection
    await connection.close()


async def committed(server: Postgres, sql: asyncpg.Connection, first: str) -> list[asyncpg.Record]:
    """Return all remembered events in the order in which PostgreSQL committed them, from the WAL itself.

    Nothing of logical decoding is involved: `pg_waldump` prints the commit records, the events know their
    transaction. Within a transaction events are in the order in which they were appended.

    Args:
        server: its WAL has not been removed since `first`.
        sql: a session on it.
        first: a position in the WAL before the first event.

    """
    await sql.execute("CREATE TABLE IF NOT EXISTS flushed (); SET synchronous_commit = on; ANALYZE flushed")
    last = await sql.fetchval("SELECT pg_current_wal_flush_lsn()::text")
    command = [server.binary("pg_waldump"), "--rmgr=Transaction", f"--start={first}", f"--end={last}"]
    wal = server.directory / "data" / "pg_wal"
    run = partial(subprocess.run, capture_output=True, text=True, check=True)
    dumped = await asyncio.to_thread(run, [*command, f"--path={wal}"])
    place = {int(xid): number for number, xid in enumerate(COMMIT.findall(dumped.stdout))}
    events = await sql.fetch("SELECT * FROM remembered")
    return sorted(events, key=lambda event: (place[event["xid"]], event["id"]))


class Reader:
    """A process of Debezium, and the messages that it gave."""

    def __init__(self, output: Path, process: subprocess.Popen[bytes]) -> None:
        self.output = output
        self.process = process

    @property
    def messages(self) -> list[dict[str, Any]]:
        """What it gave so far for the topics of events; whole lines only."""
        lines = self.output.read_text().split("\n")[:-1]
        parsed = (json.loads(line) for line in lines)
        return [message for message in parsed if message["topic"].startswith("outbox.event.")]

    @property
    def ids(self) -> list[int]:
        return [int(message["headers"]["id"]) for message in self.messages]

    async def has_read(self, count: int) -> None:
        """Wait until it gave so many messages."""
        async with asyncio.timeout(READ_WITHIN_SECONDS):
            while len(self.ids) < count:
                assert self.process.poll() is None, self.errors
                await asyncio.sleep(0.1)

    async def ended(self) -> int:
        return await asyncio.to_thread(self.process.wait, READ_WITHIN_SECONDS)

    @property
    def errors(self) -> str:
        return self.output.with_suffix(".errors").read_text()


@contextmanager
def reading(
    python: Path, server: Postgres, directory: Path, name: str, die_after: int | None = None
) -> Iterator[Reader]:
    """Start Debezium with the shipped file, and kill it at the end of the block.

    Its offsets are kept in the directory: the next one goes on from there.
    """
    url = make_url(server.url)
    overrides = {
        "database.hostname": url.host,
        "database.port": str(url.port),
        "database.dbname": url.database,
        "database.user": "sync_debezium",
        "database.password": PASSWORD,
        "database.sslmode": "disable",
        "offset.storage": "org.apache.kafka.connect.storage.FileOffsetBackingStore",
        "offset.storage.file.filename": str(directory / "offsets"),
        "offset.flush.interval.ms": "0",  # after each batch
    }
    assert all(MAY_DIFFER.fullmatch(key) for key in overrides)
    file = directory / f"{name}.overrides.json"
    file.write_text(json.dumps(overrides))
    words = [python, HERE / "engine.py", CONNECTOR, file, *([die_after] if die_after else [])]
    output = directory / f"{name}.messages"
    with output.open("wb") as out, output.with_suffix(".errors").open("wb") as errors:
        command = tied_to_us([str(word) for word in words], "KILL")
        process = subprocess.Popen(command, cwd=directory, stdout=out, stderr=errors)
    try:
        yield Reader(output, process)
    finally:
        process.kill()
        process.wait(20)
