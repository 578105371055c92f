"""The command line of `python -m worker.backfill`, and which of its options go together."""

import argparse
from collections.abc import Sequence

from shared.choices import DEFAULT_MAX_PENDING
from worker.command_line.grammar import argument_parser, text, whole

DESCRIPTION = """\
Enqueue an event for every collection that project_collections misses or shows
differently. Workers apply them, after live writes. What is in sync is left alone.

A run remembers how far it came: interrupted, killed or paused, --resume goes on
exactly there. Only one run can be unfinished at a time."""
USAGE = """\
%(prog)s [options of a new run] [--wait | --in-worker]
       %(prog)s --resume [--wait | --in-worker]
       %(prog)s --dry-run [--project ID] [--rate N]
       %(prog)s --status | --follow | --list
       %(prog)s --set-rate N | --pause | --cancel"""
EXAMPLES = (
    ("--dry-run", "count what is to be brought over; nothing is written"),
    ("--wait", "bring it over, wait until it is applied, and prove it"),
    ("--in-worker --rate 2000", "let the workers do it, at 2,000 rows a second"),
    ("--follow", "from another terminal: see how far it is"),
    ("--set-rate 500", "from another terminal: slow it down"),
)

ACTIONS = ("dry_run", "status", "follow", "list", "set_rate", "pause", "resume", "cancel")
OF_A_NEW_RUN = ("project", "rate", "max_pending")
UNBOUNDED = 0  # of --set-rate


def parse(words: Sequence[str]) -> argparse.Namespace:
    """Return the arguments, with `action`: `start` or one of ACTIONS.

    Raises:
        SystemExit: with status 2, after saying why these options do not go together.

    """
    parser = grammar()
    arguments = parser.parse_args(words)
    arguments.action = next((name for name in ACTIONS if _is_given(getattr(arguments, name))), "start")
    if arguments.action not in {"start", "dry_run"}:
        for name in OF_A_NEW_RUN:
            if getattr(arguments, name) is not None:
                parser.error(_not_of_this_run(name, arguments.action))
    for name in ("wait", "in_worker"):
        if getattr(arguments, name) and arguments.action not in {"start", "resume"}:
            parser.error(f"{_option(name)} does not go with {_option(arguments.action)}")
    if arguments.wait and arguments.in_worker:
        parser.error("--wait does not go with --in-worker, which returns at once; look with --follow")
    return arguments


def _is_given(value: object) -> bool:
    return value is not None and value is not False  # a rate of 0 is one


def _not_of_this_run(name: str, action: str) -> str:
    hint = "; --set-rate changes that of a run" if name == "rate" else ""
    return f"{_option(name)} is for a new run: {_option(action)} changes no options{hint}"


def _option(name: str) -> str:
    return "--" + name.replace("_", "-")


def grammar() -> argparse.ArgumentParser:
    """Return the command line's grammar."""
    parser = argument_parser("-m worker.backfill", DESCRIPTION, examples=EXAMPLES)
    parser.usage = USAGE
    new = parser.add_argument_group("a new run")
    new.add_argument("--project", metavar="ID", type=text, help="only the collections of this home project")
    new.add_argument("--rate", metavar="N", type=whole(), help="at most N rows a second")
    new.add_argument(
        "--max-pending",
        metavar="N",
        type=whole(),
        help=f"wait while N backfill events are pending (default: {DEFAULT_MAX_PENDING})",
    )
    new.add_argument("--wait", action="store_true", help="wait until all is applied, then audit")
    new.add_argument("--in-worker", action="store_true", help="let the workers do it, and return at once")
    instead = parser.add_argument_group("instead of a new run").add_mutually_exclusive_group()
    instead.add_argument("--dry-run", action="store_true", help="say what would be enqueued; write nothing")
    instead.add_argument("--status", action="store_true", help="show the latest run")
    instead.add_argument(
        "--follow",
        action="store_true",
        help="watch the latest run, which another process drives, until it ends or stops",
    )
    instead.add_argument("--list", action="store_true", help="show the newest runs")
    instead.add_argument(
        "--set-rate",
        metavar="N",
        type=_rate,
        help="let the unfinished run go on at N rows a second at most; 0 or none: at any speed",
    )
    instead.add_argument("--pause", action="store_true", help="stop the run after its present chunk")
    instead.add_argument("--resume", action="store_true", help="go on with the unfinished run")
    instead.add_argument("--cancel", action="store_true", help="give the unfinished run up")
    return parser


def _rate(word: str) -> int:
    return UNBOUNDED if word == "none" else whole(UNBOUNDED)(word)
