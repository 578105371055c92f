"""The command line of `python -m worker.backfill`, and which of its options go together."""

import argparse
from collections.abc import Sequence

from shared.choices import DEFAULT_MAX_PENDING
from worker.command_line.grammar import argument_parser, text

DESCRIPTION = """\
Enqueue an event for every collection that project_collections misses or shows
differently. Workers apply them, after live writes. What is in sync is left alone.

A run remembers how far it came: interrupted, killed or paused, --resume goes on
exactly there. Only one run can be unfinished at a time."""

ACTIONS = ("dry_run", "status", "pause", "resume", "cancel")
OF_A_NEW_RUN = ("project", "rate", "max_pending")


def parse(words: Sequence[str]) -> argparse.Namespace:
    """Return the arguments, with `action`: `start` or one of ACTIONS.

    Raises:
        SystemExit: with status 2, after saying why these options do not go together.

    """
    parser = grammar()
    arguments = parser.parse_args(words)
    arguments.action = next((action for action in ACTIONS if getattr(arguments, action)), "start")
    if arguments.action not in {"start", "dry_run"}:
        for name in OF_A_NEW_RUN:
            if getattr(arguments, name) is not None:
                parser.error(
                    f"{_option(name)} is for a new run: {_option(arguments.action)} changes no options"
                )
    for name in ("wait", "in_worker"):
        if getattr(arguments, name) and arguments.action not in {"start", "resume"}:
            parser.error(f"{_option(name)} does not go with {_option(arguments.action)}")
    if arguments.wait and arguments.in_worker:
        parser.error("--wait does not go with --in-worker, which returns at once; look with --status")
    return arguments


def _option(name: str) -> str:
    return "--" + name.replace("_", "-")


def grammar() -> argparse.ArgumentParser:
    """Return the command line's grammar."""
    parser = argument_parser("-m worker.backfill", DESCRIPTION)
    new = parser.add_argument_group("a new run")
    new.add_argument("--project", metavar="ID", type=text, help="only the collections of this home project")
    new.add_argument("--rate", metavar="N", type=_positive, help="at most N rows a second")
    new.add_argument(
        "--max-pending",
        metavar="N",
        type=_positive,
        help=f"wait while N backfill events are pending (default: {DEFAULT_MAX_PENDING})",
    )
    new.add_argument("--wait", action="store_true", help="wait until all is applied, then audit")
    new.add_argument("--in-worker", action="store_true", help="let the workers do it, and return at once")
    instead = parser.add_argument_group("instead of a new run").add_mutually_exclusive_group()
    instead.add_argument("--dry-run", action="store_true", help="say what would be enqueued; write nothing")
    instead.add_argument("--status", action="store_true", help="show the latest run")
    instead.add_argument("--pause", action="store_true", help="stop the run after its present chunk")
    instead.add_argument("--resume", action="store_true", help="go on with the unfinished run")
    instead.add_argument("--cancel", action="store_true", help="give the unfinished run up")
    return parser


def _positive(word: str) -> int:
    try:
        number = int(word)
    except ValueError:
        number = 0
    if not 0 < number < 2**31:
        raise argparse.ArgumentTypeError(f"must be a whole number above 0, not {word!r}")
    return number
