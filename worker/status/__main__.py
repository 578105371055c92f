"""The command `python -m worker.status`."""

import argparse
import sys
from collections.abc import Sequence
from functools import partial

from shared.process.late_imports import late_imports
from shared.process.orderly import orderly
from worker.command_line.grammar import argument_parser, text

DESCRIPTION = """\
Show where the migration stands and what to type next, from the database alone: no
Redis, no log. It changes nothing, locks nothing, waits for nobody, and works on a
standby as well. What is not known, or not for this login to see, is a dash.

With a COLLECTION_ID: that collection alone, in both tables, with its version, its
events, letters and findings, and a sentence on why it is as it is."""

EXAMPLES = (
    ("", "where it stands, and what to type next"),
    ("--watch", "the same, drawn anew each second"),
    ("old-7", "everything about one collection, and why it is as it is"),
)
EXIT_STATUS = """\
exit status: 0 when all is well (in sync, proved by an audit that is not outdated), 1 when it is not, or is
not known; 2 on wrong usage or an incomplete environment. With --watch that of the last look."""


def grammar() -> argparse.ArgumentParser:
    parser = argument_parser("-m worker.status", DESCRIPTION, examples=EXAMPLES, exit_status=EXIT_STATUS)
    parser.add_argument("collection_id", metavar="COLLECTION_ID", nargs="?", type=text, help="only this one")
    parser.add_argument("--watch", action="store_true", help="look again each second, until Ctrl-C")
    return parser


def parse(words: Sequence[str]) -> argparse.Namespace:
    parser = grammar()
    options = parser.parse_args(words)
    if options.watch and options.collection_id is not None:
        parser.error("--watch is for the whole, not for one collection")
    return options


if __name__ == "__main__":
    with orderly():
        options = parse(sys.argv[1:])
        with late_imports():
            from worker.command_line.run import run_command

            if options.collection_id is None:
                from worker.status.command import execute
            else:
                from worker.status.one import execute
        sys.exit(run_command("status", partial(execute, options)))
