"""`python -m worker`: run one worker process."""

import argparse
import sys

from shared.process.late_imports import late_imports
from shared.process.orderly import orderly
from shared.variables import WORKER
from worker.command_line.grammar import argument_parser

DESCRIPTION = """\
Apply pending outbox events to project_collections until SIGTERM or Ctrl-C.

Any number of workers may run at once. PostgreSQL holds the work and Redis only
wakes the worker: while Redis is away, PostgreSQL is asked directly."""

EXAMPLES = (
    ("", "apply what waits, until Ctrl-C"),
    ("--check", "for a supervisor: is a worker of this host alive?"),
)
EXIT_STATUS = """\
exit status: 0 after a signal, 1 when the worker failed or --check found none
alive, 2 on wrong usage or an incomplete environment."""


def grammar() -> argparse.ArgumentParser:
    parser = argument_parser(
        "-m worker",
        DESCRIPTION,
        examples=EXAMPLES,
        variables=WORKER,
        takes_json=False,
        exit_status=EXIT_STATUS,
    )
    parser.add_argument(
        "--check", action="store_true", help="only report whether a worker of this host is alive"
    )
    return parser


if __name__ == "__main__":
    with orderly():
        options = grammar().parse_args()
        with late_imports():
            if options.check:
                from worker.check import main
            else:
                from worker.process import main
        sys.exit(main())
