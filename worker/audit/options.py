"""The command line of `python -m worker.audit`."""

import argparse
import math
from collections.abc import Sequence

from shared.choices import MOST_SLICES
from shared.pair import IN_WORDS
from worker.command_line.grammar import argument_parser, text

DESCRIPTION = f"""\
Prove, pair by pair and while writes go on, that project_collections shows exactly what collections holds:
{IN_WORDS} of every home row. Nothing is locked. A pair that differs
while an event for it waits is counted as pending; it is no drift."""


def grammar() -> argparse.ArgumentParser:
    """Return the command line's grammar."""
    parser = argument_parser("-m worker.audit", DESCRIPTION)
    parser.add_argument(
        "--project", metavar="ID", type=text, help="only collections whose home is this project"
    )
    parser.add_argument(
        "--repair",
        action="store_true",
        help="append an event for each difference, wait for a worker to apply it, compare it again",
    )
    parser.add_argument(
        "--repair-dead",
        action="store_true",
        help="with --repair: also what differs because its event died. Otherwise that is passed over: its"
        " state would die of the same cause, until what the dead letter's reason names is fixed",
    )
    parser.add_argument(
        "--watch",
        action="store_true",
        help="again and again, one line each, until Ctrl-C, also when PostgreSQL was away meanwhile",
    )
    parser.add_argument(
        "--interval",
        metavar="SECONDS",
        type=seconds,
        help="pause between the passes of --watch (default 60)",
    )
    parser.add_argument(
        "--connections",
        metavar="N",
        type=connections,
        default=1,
        help=f"compare N slices of the tables at once (default 1, at most {MOST_SLICES})",
    )
    return parser


def parse(words: Sequence[str]) -> argparse.Namespace:
    """Return the arguments.

    Raises:
        SystemExit: with status 2, after saying why these options do not go together.

    """
    parser = grammar()
    options = parser.parse_args(words)
    if options.interval is not None and not options.watch:
        parser.error("--interval needs --watch")
    if options.repair_dead and not options.repair:
        parser.error("--repair-dead needs --repair")
    return options


# Their names are the user's: argparse complains of an "invalid seconds value" where one raises ValueError.


def connections(word: str) -> int:
    """Read how many slices to compare at once."""
    value = int(word)
    if not 1 <= value <= MOST_SLICES:
        msg = f"must be from 1 to {MOST_SLICES}"
        raise argparse.ArgumentTypeError(msg)
    return value


def seconds(word: str) -> float:
    """Read a pause."""
    value = float(word)
    if not math.isfinite(value) or value < 0:
        raise ValueError
    return value
