"""Run every guarantee's tests as they are, and then with each broken twin in the place of its mechanism.

A twin is convicted when a test of its own fails on it, by an assertion about the outcome. Exit status: 0
when the tests pass as they are and each convicts its twins, 1 when not, 2 for wrong usage.
"""

import argparse
import subprocess
import sys
from collections.abc import Sequence

from tests.forked import ROOT
from tests.twins.registry import TWINS

NOT_LONG = "not long and not debezium and not image"


def main(arguments: Sequence[str] | None = None) -> int:
    options = parse(arguments)
    names = options.names or list(TWINS)
    if options.list:
        for name in names:
            say(f"{name}\n  breaks: {TWINS[name].promise}", *TWINS[name].tests)
        return 0
    files = dict.fromkeys(test.partition("::")[0] for name in names for test in TWINS[name].tests)
    chosen = [word for name in names for word in ("--twin", name)]
    command = [sys.executable, "-m", "pytest", "-n", str(options.n), "-v", "-m", NOT_LONG, *chosen, *files]
    return 0 if subprocess.run(command, cwd=ROOT, check=False).returncode == 0 else 1


def say(*lines: str) -> None:
    print(*lines, sep="\n    ")  # noqa: T201 - a command speaks to a terminal


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.twins", description=__doc__)
    parser.add_argument("names", metavar="NAME", nargs="*", help="twins to convict; none: all of them")
    parser.add_argument("--list", action="store_true", help="name them and run nothing")
    parser.add_argument("-n", type=int, default=2, metavar="N", help="processes that run tests (2)")
    options = parser.parse_args(arguments)
    for name in options.names:
        if name not in TWINS:
            parser.error(f"there is no twin {name!r}; --list names them all")
    return options


if __name__ == "__main__":
    sys.exit(main())
