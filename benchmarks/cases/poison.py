"""A worker's drain with events among the others that can never be applied: they must not hold it up."""

from collections.abc import Sequence

from benchmarks.bench import Bench
from benchmarks.drains import drain, logging_to_files, pile_up, require_drained
from benchmarks.figures import Beside, Figure
from benchmarks.legacy_rows import make_rows

TARGET = 0.5  # of the speed without
POISON_EVENTS = 20  # evenly spread

POISON = """
    UPDATE outbox_events SET payload = payload || '{"created_at": "not a time"}'
    WHERE (id - (SELECT min(id) FROM outbox_events)) % $1 = $1 / 2
"""


async def measure(bench: Bench) -> Sequence[Figure]:
    """Take turns without and with poison; all of it must end as dead letters, all else in the target."""
    events = bench.choose(1_000, 10_000)
    bench.facts.update(events=events, poison=POISON_EVENTS)
    healthy, poisoned = [], []
    async with bench.sql() as sql:
        await make_rows(sql, events)
        with logging_to_files(bench):
            for _ in range(bench.choose(1, 5)):
                await pile_up(sql, "api")
                healthy.append(events / await drain(bench))
                await require_drained(sql)
                await pile_up(sql, "api")
                await sql.execute(POISON, events // POISON_EVENTS)
                poisoned.append(events / await drain(bench))
                await require_drained(sql, dead=POISON_EVENTS)
    return (
        Figure("healthy", "events/s", healthy),
        Figure("with poison", "events/s", poisoned, beside=[Beside("healthy", at_least=TARGET)]),
    )
