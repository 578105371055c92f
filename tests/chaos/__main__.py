"""`python -m tests.chaos`: what `make chaos` runs."""

import argparse
import contextlib
import json
import math
import random
import sys
import tempfile
from asyncio import Runner
from collections import Counter
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

from deploy.local.errors import LocalError
from tests.chaos.run import Plan, Report, carry_out
from tests.chaos.system import servers

CLEAN, LOST, WRONG_USAGE = 0, 1, 2
MOST_EVIDENCE = 200
WIDTH_OF_A_FILE = 130

DESCRIPTION = """\
Break everything, again and again, while users write; then prove that nothing was lost.

Starts a PostgreSQL, a Valkey, two APIs and two workers of its own, each started again when it
ends, and begins 50 writes a second: collections are created, changed and deleted. Faults are drawn at
random, one or two at a time, from: SIGKILL, SIGSTOP and clock jumps of a worker or an API;
restart, crash, terminated sessions and locked rows of PostgreSQL; read-only spells, row-level
security, grants taken and given back, a table renamed and back, a slow trigger, a row that crashes
the server; Redis killed, hung and flushed; connections cut in the middle of a command, or stalled,
by a proxy; a log file that cannot grow; poison events planted in the outbox. After each one writes
must be answered and the lag be small again. APIs and workers log in as deploy/roles.sql has it.

At the end every answer is held against the database: what was acknowledged is there, what was
refused is not, what was in doubt is there wholly or not at all; the target shows what the
legacy table holds, by a comparison of the tests' own and by `python -m worker.audit`; the dead
letters are those planted; no event was applied twice; no process ended by itself or wrote
anything but JSON lines."""

EPILOG = """\
The table has a row for each kind of fault: how often it was inflicted; how much of it happened
(cuts, sessions, events, crashes, waiting connections, lines without space, complaints of APIs and
workers); and the longest time from its end until writes were answered 200 by both APIs, and until
the oldest pending event was younger than a second. Of two faults at once both get the time. Where
neither comes, the machine may be too busy: the load is halved, and what does not recover under an
eighth of it is lost.

A clock jump is one of the process's Python clock: the machine's own is left alone. The log file
cannot grow because of a limit of the process, which fails writes as a full disk does.

examples:
  python -m tests.chaos --minutes 10
  python -m tests.chaos --seed 7 --json    # the faults of an earlier run, in the same order

exit status: 0 when nothing was lost, 1 when something was, 2 on wrong usage or when the
servers do not start. Linux only. Needs nothing but `make venv`."""


def minutes(word: str) -> float:
    """Read a duration; argparse says "invalid minutes value" where this raises ValueError."""
    value = float(word)
    if not math.isfinite(value) or value <= 0:
        raise ValueError
    return value


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m tests.chaos",
        description=DESCRIPTION,
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "--minutes", type=minutes, default=3.0, help="for how long faults are begun (default: %(default)s)"
    )
    parser.add_argument("--seed", type=int, help="draws the faults (default: another one each time)")
    parser.add_argument(
        "--keep", metavar="DIRECTORY", type=Path, help="keep logs and data in this new directory"
    )
    parser.add_argument("--json", action="store_true", help="end with one line of JSON instead of tables")
    return parser.parse_args()


def faults_table(report: Report) -> Table:
    table = Table(box=SIMPLE_HEAD, show_edge=False)
    table.add_column("fault")
    for title in ("times", "happened", "200 again after", "lag < 1 s after"):
        table.add_column(title, justify="right")
    for fault in report.plan.faults:
        if (record := report.records.get(fault.name)) is not None:
            seconds = (f"{record.answered_seconds:.1f} s", f"{record.lag_seconds:.1f} s")
            table.add_row(fault.name, str(record.times), str(record.evidence), *seconds)
    return table


def verdict_table(report: Report) -> Table:
    table = Table(box=SIMPLE_HEAD, show_edge=False)
    table.add_column("verdict")
    table.add_column("looked at", justify="right")
    table.add_column("against it", justify="right")
    table.add_column("for example")
    for check in report.checks:
        style = None if check.holds else "bold red"
        table.add_row(check.name, str(check.looked_at), str(len(check.against)), check.examples, style=style)
    return table


def as_json(report: Report) -> dict[str, object]:
    """Return the line that a machine reads."""
    statuses = Counter(str(write.status or "unanswered") for write in report.writes)
    checks = {
        check.name: {"looked_at": check.looked_at, "against": len(check.against), "examples": check.examples}
        for check in report.checks
    }
    return {
        "verdict": "clean" if report.is_clean else "lost",
        "seed": report.plan.seed,
        "seconds": round(report.seconds, 1),
        "writes": dict(statuses),
        "writes_per_second": report.writes_per_second,
        "faults": {name: asdict(record) for name, record in report.records.items()},
        "checks": checks,
    }


def show(console: Console, report: Report) -> None:
    """Print both tables and the sentence."""
    console.print(faults_table(report))
    console.print(verdict_table(report))
    statuses = Counter(write.status for write in report.writes)
    in_doubt = statuses.total() - statuses[200] - statuses[404] - statuses[503]
    console.print(
        f"{statuses.total()} writes in {report.seconds:.0f} s of storm, seed {report.plan.seed}: "
        f"{statuses[200]} acknowledged, {statuses[503]} answered 503, {statuses[404]} answered 404, "
        f"{in_doubt} unanswered or otherwise. The load was {report.plan.writes_per_second} writes a second, "
        f"at the end {report.writes_per_second}.\n"
        f"{'Nothing was lost.' if report.is_clean else 'The system broke its promises.'}",
        markup=False,
    )


@contextlib.contextmanager
def kept_or_temporary(directory: Path | None) -> Iterator[Path]:
    """Yield an empty directory: the one that is to be kept, or one that goes afterwards."""
    if directory is None:
        with tempfile.TemporaryDirectory(prefix="chaos-") as name:
            yield Path(name)
    else:
        directory.mkdir(parents=True)
        yield directory.absolute()


def show_evidence(progress: Console, report: Report) -> None:
    """Print what stands against each promise that was broken, up to a bound."""
    for check in report.checks:
        for evidence in check.against[:MOST_EVIDENCE]:
            progress.out(f"{check.name}: {evidence}", highlight=False)


def main() -> int:
    """Run the suite and return the exit status."""
    arguments = parse()
    seed = random.SystemRandom().randrange(1_000_000) if arguments.seed is None else arguments.seed
    console, progress = Console(highlight=False), Console(stderr=True, highlight=False)
    if not console.is_terminal:
        console = Console(highlight=False, width=WIDTH_OF_A_FILE)

    def tell(text: str) -> None:
        progress.print(text, style="dim", markup=False)

    tell(f"seed {seed}")
    plan = Plan(seed, arguments.minutes * 60)
    with kept_or_temporary(arguments.keep) as directory:
        try:
            with (
                servers(directory) as (postgres, valkey),
                Runner() as runner,  # uvloop's stops to accept connections once many were reset
            ):
                report = runner.run(carry_out(plan, directory, postgres, valkey, tell))
        except LocalError as error:
            progress.print(str(error), markup=False)
            return WRONG_USAGE
    if arguments.json:
        console.out(json.dumps(as_json(report)), highlight=False)
    else:
        show(console, report)
    show_evidence(progress, report)
    return CLEAN if report.is_clean else LOST


if __name__ == "__main__":
    sys.exit(main())
