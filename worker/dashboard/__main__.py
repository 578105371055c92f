"""The command `python -m worker.dashboard`."""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from shared.process.late_imports import late_imports
from shared.process.orderly import orderly
from worker.command_line.grammar import argument_parser, text, whole

PORTS = range(8080, 8180)  # the first that is free, where none is named
DESCRIPTION = """\
Answer from log lines alone: do both tables agree, since when is that known, how late are the workers,
what failed, how far is a backfill, and may I go on?

LOG is a file that API, workers or commands write with LOG_FILE, or a pipe; - is standard input. What rotation
made of it (LOG.1, LOG.2.gz, LOG-20260131) is read with it; several logs make one picture. Nothing else is
needed: no database, no network, no environment variable."""
EXAMPLES = (
    ("worker.log api.log", "the answers, in this terminal"),
    ("worker.log --serve", "the page, in a browser, as long as the log goes on"),
    ("worker.log --html page.html", "the page as one file, to keep or to mail"),
)
EXIT_STATUS = """\
exit status: 0 when all is well (in sync, and a worker is heard), the page was written, or a signal ended the
server; 1 when it is not, or is not known, or work failed; 2 on wrong usage."""


def grammar() -> argparse.ArgumentParser:
    parser = argument_parser(
        "-m worker.dashboard", DESCRIPTION, examples=EXAMPLES, variables={}, exit_status=EXIT_STATUS
    )
    parser.add_argument(
        "logs", metavar="LOG", nargs="+", type=Path, help="a file or a pipe of log lines, packed or not"
    )
    how = parser.add_mutually_exclusive_group()
    how.add_argument(
        "--serve",
        metavar="PORT",
        nargs="?",
        type=port,
        const=PORTS,
        help="serve the page and follow the logs until Ctrl-C (default: 8080, or the next free port; 0: any)",
    )
    how.add_argument(
        "--html",
        metavar="FILE",
        type=Path,
        help="write the page as one file, to keep or to mail; - is standard output",
    )
    parser.add_argument(
        "--host",
        type=text,
        default="127.0.0.1",
        help="address for --serve; other machines see no page (default 127.0.0.1)",
    )
    parser.add_argument(
        "--host-name",
        metavar="NAME",
        type=text,
        action="append",
        default=[],
        help="for --serve: a name that a proxy before it asks for; others than this machine's are refused",
    )
    parser.add_argument(
        "--fd",
        metavar="NUMBER",
        type=int,
        help="for --serve: a socket that listens already, of a supervisor's",
    )
    return parser


def parse(arguments: list[str]) -> argparse.Namespace:
    """Read the command line; end the process with status 2 when it is wrong."""
    parser = grammar()
    options = parser.parse_args(arguments)
    if options.json and options.serve is not None:
        parser.error("--json is the end of a reading; --serve has /snapshot.json")
    return options


def port(word: str) -> Sequence[int]:
    """Read a port, the only one to try."""
    return (whole(0, 2**16 - 1)(word),)


if __name__ == "__main__":
    with orderly():
        options = parse(sys.argv[1:])
        with late_imports():
            from worker.dashboard.command import run
        sys.exit(run(options))
