"""The command `python -m worker.preflight`."""

import argparse
import sys
from functools import partial

from shared.process.late_imports import late_imports
from shared.process.orderly import orderly
from worker.command_line.grammar import argument_parser

DESCRIPTION = """\
Look for everything that will bite, before it bites: in the database, its roles and its tables, in what
others have put there, in Redis and in the clocks of the hosts. Nothing is changed, unless
--repair-sequences asks for that.

Each check says ok, warn or stop, in a sentence, with the command or the SQL that cures it. A check that
could not look is a warn. Run it as the owner of the tables, or with the login of any of the processes."""

EXAMPLES = (
    ("", "look, and change nothing"),
    ("--repair-sequences", "set sequences that would draw ids once more, as their owner"),
)
EXIT_STATUS = """\
exit status: 0 when nothing stops, or every sequence is right; 1 when something stops, or is left to repair;
2 on wrong usage or an incomplete environment."""


def grammar() -> argparse.ArgumentParser:
    parser = argument_parser("-m worker.preflight", DESCRIPTION, examples=EXAMPLES, exit_status=EXIT_STATUS)
    parser.add_argument(
        "--repair-sequences",
        action="store_true",
        help="instead: set sequences that would draw ids once more beyond those ids, as their owner",
    )
    return parser


if __name__ == "__main__":
    with orderly():
        options = grammar().parse_args()
        with late_imports():
            from worker.command_line.run import run_command

            if options.repair_sequences:
                from worker.preflight.repair import execute
            else:
                from worker.preflight.command import execute
        sys.exit(run_command("preflight", partial(execute, options)))
