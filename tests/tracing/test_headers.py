"""Of a request's headers only a well-formed `traceparent` counts, and of it only what the standard names."""

import asyncpg
import httpx
import pytest
from sqlalchemy.ext.asyncio import AsyncEngine
from structlog.testing import capture_logs

from tests.api.clients import OWNER, SEEDED
from tests.draining import drain
from tests.tracing.spans import BATCH, EVENT, Spans, made_up

TRACE, SPAN = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
GOOD = f"00-{TRACE}-{SPAN}-01"
CARRIED = "SELECT traceparent FROM outbox_events ORDER BY id DESC LIMIT 1"

IGNORED = [
    "",
    f"00-{'0' * 32}-{SPAN}-01",
    f"00-{TRACE}-{'0' * 16}-01",
    GOOD.upper(),
    f"00-{TRACE[1:]}-{SPAN}-01",
    f"00-{TRACE[1:]}g-{SPAN}-01",
    f"{GOOD}-00",
    f"ff-{TRACE}-{SPAN}-01",  # the version that there is not
    f"{GOOD},{GOOD}",
    f"01-{TRACE}-{SPAN}-01-{'x' * 10_000}",
    "00-' OR 1=1 --",
]
TAKEN = {
    GOOD: GOOD,
    f"00-{TRACE}-{SPAN}-00": f"00-{TRACE}-{SPAN}-00",
    f" {GOOD} ": GOOD,
    f"42-{TRACE}-{SPAN}-01-of a later version": GOOD,
    f"00-{TRACE}-{SPAN}-ff": GOOD,  # flags that nobody knows
}


async def write(client: httpx.AsyncClient, *headers: tuple[str, str]) -> dict[str, object]:
    """Change the seeded collection and return the log line."""
    with capture_logs() as lines:
        answer = await client.put(SEEDED, headers=[*OWNER.items(), *headers], json={"description": "x"})
    assert answer.status_code == 200
    (written,) = [line for line in lines if line["event"] == "collection_written"]
    return dict(written)


async def test_a_malformed_traceparent_is_ignored_without_a_word(
    client: httpx.AsyncClient, seeded: asyncpg.Connection, caplog: pytest.LogCaptureFixture
) -> None:
    for header in IGNORED:
        written = await write(client, ("traceparent", header))
        assert ("trace_id" in written, await seeded.fetchval(CARRIED)) == (False, None), header
    assert [record for record in caplog.records if record.name.startswith("opentelemetry")] == []


async def test_of_a_well_formed_traceparent_the_known_parts_are_stored(
    client: httpx.AsyncClient, seeded: asyncpg.Connection
) -> None:
    for header, stored in TAKEN.items():
        written = await write(client, ("traceparent", header))
        assert (written["trace_id"], await seeded.fetchval(CARRIED)) == (TRACE, stored), header


async def test_two_traceparents_are_none(client: httpx.AsyncClient, seeded: asyncpg.Connection) -> None:
    await write(client, ("traceparent", made_up()), ("traceparent", made_up()))
    assert await seeded.fetchval(CARRIED) is None


@pytest.mark.parametrize("tracing", ["off", "on"])
async def test_no_other_header_is_stored_or_reaches_the_worker(
    tracing: str,
    client: httpx.AsyncClient,
    seeded: asyncpg.Connection,
    engine: AsyncEngine,
    request: pytest.FixtureRequest,
) -> None:
    spans: Spans | None = request.getfixturevalue("spans") if tracing == "on" else None
    for other in ("baggage", "tracestate", "b3", "uber-trace-id"):
        await write(client, (other, f"secret={TRACE}"))
        assert TRACE not in (await seeded.fetchval(CARRIED) or "")
        await write(client, (other, f"secret={TRACE}"), ("traceparent", GOOD))
        carried = await seeded.fetchval(CARRIED)
        assert (carried[:36], len(carried), carried == GOOD) == (GOOD[:36], len(GOOD), spans is None)
    await drain(engine)
    if spans is not None:
        told = spans.named(EVENT) + spans.named(BATCH)
        assert len(told) == 2 * 4 + 1
        assert "secret" not in "".join(span.to_json() for span in told)


INSERTS = {
    "outbox_events": """
        INSERT INTO outbox_events (aggregate_id, event_type, source, payload, traceparent)
        VALUES ('c', 'collection.updated', 'api', '{}', $1)
    """,
    "outbox_dead_letters": """
        INSERT INTO outbox_dead_letters
            (id, aggregate_id, event_type, source, payload, created_at, error, traceparent)
        VALUES (1, 'c', 'collection.updated', 'api', '{}', now(), '', $1)
    """,
}
MISPLACED = ((1, "1"), (2, "0"), (5, "-"), (5, "g"), (5, "٣"), (5, " "), (35, "0"), (52, "f"), (54, "-"))


async def test_the_database_takes_nothing_but_a_traceparent(seeded: asyncpg.Connection) -> None:
    for table, insert in INSERTS.items():
        misplaced = (f"{GOOD[:place]}{sign}{GOOD[place + 1 :]}" for place, sign in MISPLACED)
        for wrong in ("", GOOD[:-1], f"{GOOD}-", GOOD.upper(), f"{GOOD}\n", f"\n{GOOD}", *misplaced):
            with pytest.raises(asyncpg.CheckViolationError) as refused:
                await seeded.execute(insert, wrong)
            assert refused.value.as_dict()["constraint_name"] == f"{table}_traceparent_of_w3c"
        await seeded.execute(insert, GOOD)
