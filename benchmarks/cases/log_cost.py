"""A worker's drain that logs a line for each event, to stdout and to a file, beside one that says nothing."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from unittest import mock

from benchmarks.bench import Bench, require
from benchmarks.drains import drain, logging_to_files, pile_up, require_drained
from benchmarks.figures import Beside, Figure
from benchmarks.legacy_rows import make_rows

TARGET = 0.9  # of the speed without


@contextmanager
def silence() -> Iterator[None]:
    with mock.patch.multiple(
        "worker.telemetry.reporter", log_summary=mock.Mock(), event_lines=lambda _: iter(())
    ):
        yield


async def measure(bench: Bench) -> Sequence[Figure]:
    """Take turns without and with the log at its default level; both of its outputs are files."""
    events = bench.choose(1_000, 30_000, 200_000)
    bench.facts.update(events=events)
    silent, logged = [], []
    async with bench.sql() as sql:
        await make_rows(sql, events)
        with logging_to_files(bench):
            for _ in range(bench.choose(1, 3)):
                await pile_up(sql, "api")
                before = _lines(bench)
                with silence():
                    silent.append(events / await drain(bench))
                require(_lines(bench) == before, "nothing was logged")
                await require_drained(sql)
                await pile_up(sql, "api")
                logged.append(events / await drain(bench))
                require(_lines(bench) - before == events, "a line was logged for each event")
                await require_drained(sql)
    return (
        Figure("without a line", "events/s", silent),
        Figure("a line for each event", "events/s", logged, beside=[Beside("without a line", TARGET)]),
    )


def _lines(bench: Bench) -> int:
    """Count the lines of events, those in rotated files as well."""
    return sum(
        path.read_bytes().count(b'"event":"event_settled"') for path in bench.directory.glob("worker.log*")
    )
