"""The command line of `python -m worker.dead_letters`, and which of its options go together."""

import argparse
from collections.abc import Sequence
from datetime import UTC, datetime

from shared.choices import LETTER_STATES
from shared.events import Source
from worker.command_line.grammar import add_json, argument_parser, text, whole

DESCRIPTION = """\
Look at the events that could not be applied, and let them go.

A dead letter stops nothing, its own collection neither: the next event of that
collection carries its full state, and closes the letter as superseded. So first
fix what the reason names, and then replay: that appends the collection's
present state, behind live writes. It can never overwrite anything newer."""

EXAMPLES = (
    ("list", "what died and is not settled"),
    ("show 42", "why, and what a replay would append"),
    ("replay 42", "try again, once what the reason names is fixed"),
    ("discard --all --sqlstate 23514", "close all that died of one error, after asking"),
)

ACTIONS = {
    "list": "show letters, oldest first; only dead ones unless --state says otherwise",
    "show": "show one letter whole: PostgreSQL's own words, what its event held, what a replay would append",
    "replay": "append the present state of the letters' collections, close the letters, say what comes of it",
    "discard": "close letters for good; nothing is appended",
}
MOST_LISTED = 50
PATIENCE_SECONDS = 5
_positive = whole(most=2**63 - 1)
FILTERS = ("collection", "project", "sqlstate", "source", "since", "until", "like")


def grammar() -> argparse.ArgumentParser:
    """Return the command line's grammar."""
    parser = argument_parser("-m worker.dead_letters", DESCRIPTION, examples=EXAMPLES, takes_json=False)
    actions = parser.add_subparsers(dest="action", required=True, metavar="list | show | replay | discard")
    listing = _add(actions, "list")
    _add_filters(listing)
    listing.add_argument(
        "--state",
        choices=(*LETTER_STATES, "all"),
        default="dead",
        help="in this state (default: %(default)s)",
    )
    listing.add_argument(
        "--limit",
        metavar="N",
        type=_positive,
        default=MOST_LISTED,
        help="at most N letters (default: %(default)s)",
    )
    listing.add_argument(
        "--groups", action="store_true", help="those that died alike as one line: how many, since when"
    )
    _add(actions, "show").add_argument("id", type=_positive, help="the letter's id, which is its event's")
    for name in ("replay", "discard"):
        closing = _add(actions, name)
        closing.add_argument("ids", metavar="ID", nargs="*", type=_positive, help="these letters")
        closing.add_argument("--all", action="store_true", help="all dead letters, or those of the filters")
        closing.add_argument("--yes", action="store_true", help="do not ask before --all, or --like")
        _add_filters(closing)
        if name == "replay":
            waiting = closing.add_mutually_exclusive_group()
            waiting.add_argument(
                "--wait",
                action="store_true",
                help=f"wait for the workers however long it takes; by default until nothing was settled for"
                f" {PATIENCE_SECONDS} s",
            )
            waiting.add_argument("--no-wait", action="store_true", help="append and end")
    return parser


def parse(words: Sequence[str]) -> argparse.Namespace:
    """Return the arguments, with `action`: one of ACTIONS.

    Raises:
        SystemExit: with status 2, after saying why these options do not go together.

    """
    parser = grammar()
    arguments = parser.parse_args(words)
    if arguments.action in {"replay", "discard"}:
        _refuse_contradictions(parser, arguments)
    return arguments


def _add(
    actions: "argparse._SubParsersAction[argparse.ArgumentParser]", name: str
) -> argparse.ArgumentParser:
    parser = actions.add_parser(name, help=ACTIONS[name], description=ACTIONS[name].capitalize() + ".")
    add_json(parser)
    return parser


def _add_filters(parser: argparse.ArgumentParser) -> None:
    filters = parser.add_argument_group("filters")
    filters.add_argument("--collection", metavar="ID", type=text, help="of this collection")
    filters.add_argument(
        "--project", metavar="ID", type=text, help="whose collection is at home in this project now"
    )
    filters.add_argument(
        "--sqlstate", metavar="CODE", type=text, help="that died of this error of PostgreSQL"
    )
    filters.add_argument("--source", choices=list(Source), help="whose event was appended by these")
    filters.add_argument(
        "--since", metavar="TIME", type=_time, help="that died then or later; ISO 8601, or UTC"
    )
    filters.add_argument("--until", metavar="TIME", type=_time, help="that died before then")
    filters.add_argument(
        "--like",
        metavar="ID",
        type=_positive,
        help="that died like this letter: of the same error, for the same reason, as events of the same type",
    )


def _refuse_contradictions(parser: argparse.ArgumentParser, arguments: argparse.Namespace) -> None:
    filtered = [name for name in FILTERS if getattr(arguments, name) is not None]
    if arguments.ids and (arguments.all or filtered):
        parser.error("name letters by ID, or choose them with --all and filters, not both")
    if not arguments.ids and not arguments.all and arguments.like is None:
        parser.error("name letters by ID, or pass --all or --like; filters narrow these down")
    if arguments.yes and arguments.ids:
        parser.error("--yes is for --all and --like")


def _time(word: str) -> datetime:
    try:
        time = datetime.fromisoformat(word)
        return time.astimezone(UTC) if time.tzinfo else time.replace(tzinfo=UTC)
    except (ValueError, OverflowError):  # or beyond the years 1 to 9999 in UTC
        raise argparse.ArgumentTypeError(f"{word!r} is no time such as 2026-11-24T13:00+01:00") from None
