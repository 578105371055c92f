"""Measure the whole system beside what limits it, and beside what else could be used."""

import argparse
import asyncio
import importlib
import json
import pkgutil
import sys
import time
import traceback
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import cast

import uvloop

from benchmarks import cases
from benchmarks.bench import Case, Scale, environment, services
from benchmarks.figures import Measured
from benchmarks.page import as_page
from benchmarks.table import as_table
from deploy.local.errors import LocalError

DESCRIPTION = """\
Measure collection-sync as ratios: every figure beside its limit, in one run.

Each case starts PostgreSQL (fsync on) and Valkey of its own; DATABASE_URL and
REDIS_URL are not looked at. Repeats take turns, and each is checked to have done
its work: figures of wrong work are not shown. A ratio is the median of pairs."""

EPILOG = """\
exit status: 0 when all targets are met, 1 when not; 2 on wrong usage or when a
case could not be measured: the others are shown. The scale `small` judges no target."""


def names() -> list[str]:
    return [module.name for module in pkgutil.iter_modules(cases.__path__)]


def load(name: str) -> Case:
    return cast("Case", importlib.import_module(f"benchmarks.cases.{name}"))


async def measure(name: str, scale: Scale, say: Callable[[str], None]) -> tuple[Measured, dict[str, str]]:
    say(f"{name}: {(load(name).__doc__ or '').splitlines()[0]}")
    began = time.monotonic()
    async with services(scale, lambda line: say(f"  {line}")) as bench:
        figures = await load(name).measure(bench)
        measured = Measured(name, figures, bench.facts, time.monotonic() - began)
        return measured, await environment(bench)


def run(chosen: Sequence[str], scale: Scale) -> tuple[list[Measured], dict[str, str], list[str]]:
    """Measure these cases, one after the other; return figures, machine, and the names of those that failed.

    A case that did not do its work is reported on stderr, and has no figures; the others are measured.
    """

    def say(line: str) -> None:
        print(line, file=sys.stderr, flush=True)

    measured: list[Measured] = []
    machine: dict[str, str] = {}
    failed: list[str] = []
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        for name in chosen:
            try:
                case, machine = runner.run(measure(name, scale, say))
            except LocalError as error:
                say(str(error))
                failed.append(name)
            except Exception:  # noqa: BLE001 - nobody runs an hour again for a fault in the last minute of it
                traceback.print_exc()
                failed.append(name)
            else:
                measured.append(case)
    return measured, machine, failed


def parser() -> argparse.ArgumentParser:
    known = "\n".join(f"  {name:<14}{(load(name).__doc__ or '').splitlines()[0]}" for name in names())
    made = argparse.ArgumentParser(
        prog="python -m benchmarks",
        description=f"{DESCRIPTION}\n\ncases:\n{known}",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    made.add_argument("cases", nargs="*", metavar="CASE", help="measure these (default: all of the scale)")
    made.add_argument(
        "--scale",
        choices=[scale.name.lower() for scale in Scale],
        default=Scale.NORMAL.name.lower(),
        help="how much is measured (default: normal, ten minutes at most; full takes an hour)",
    )
    made.add_argument("--json", type=Path, metavar="FILE", help="write everything to this file as JSON")
    made.add_argument("--page", type=Path, metavar="FILE", help="write a page with plots to this file")
    return made


def main() -> int:
    grammar = parser()
    arguments = grammar.parse_args()
    scale = Scale[arguments.scale.upper()]
    if unknown := set(arguments.cases) - set(names()):
        grammar.error(f"there is no case {', '.join(sorted(unknown))}; there are: {', '.join(names())}")
    chosen = arguments.cases or [name for name in names() if scale >= getattr(load(name), "FROM_SCALE", 0)]
    measured, machine, failed = run(chosen, scale)
    print(as_table(measured))
    print("on " + ", ".join(f"{name} {value}" for name, value in machine.items()))
    if arguments.json:
        everything = {
            "environment": machine,
            "cases": [case.as_json() for case in measured],
            "not_measured": failed,
        }
        arguments.json.write_text(f"{json.dumps(everything, indent=2)}\n")
    if arguments.page:
        arguments.page.write_text(as_page(measured, machine, failed), encoding="utf-8")
    if written := [str(path) for path in (arguments.json, arguments.page) if path]:
        print(f"written: {', '.join(written)}")
    if failed:
        print(f"not measured: {', '.join(failed)}", file=sys.stderr)
        return 2
    missed = [verdict for case in measured for verdict in case.verdicts() if not verdict.is_met]
    return 1 if missed and scale is not Scale.SMALL else 0


if __name__ == "__main__":
    sys.exit(main())
