"""The command line of `python -m worker.phase`."""

import argparse
import getpass
import os
import platform
from collections.abc import Callable, Sequence
from pathlib import Path

from shared.variables import TURNS
from worker.command_line.grammar import add_json, argument_parser, text, whole

DESCRIPTION = """\
See and turn the phase of the cutover: one row of the database, which says where
lists are read. It is advanced when its gates are met, and back at any time.

At a terminal, an operator who moves the reads, there or back, is asked first unless --yes
is given. Elsewhere nobody is asked: the gates decide."""

EXAMPLES = (
    ("status", "what is missing for the next phase, and what to type"),
    ("advance", "turn it on by one, if every gate is met"),
    ("back --reason slow", "turn it back by one, and see what reads lose by it"),
    ("report --html turn.html", "the last turn as a page, for the person who signs it"),
)
ACTIONS = {
    "status": "show the phase, each gate to the next one, what comparisons of lists found, and what to type",
    "advance": "turn it on by one, in one transaction with a look at its gates; refuse where one is not met",
    "back": "turn it back by one, and show what only project_collections holds",
    "report": "write a turn as a page: its gates as they were, the audits around it, who, why, its cost",
}
EXIT_STATUS = """\
exit status: 0 when it was turned or written; of status, when every gate to the next phase is met, in the
last phase when no comparison found a mismatch. 1 when not, 2 on wrong usage or an incomplete environment."""
LONGEST_REASON = 2_000
LONGEST_ACTOR = 200


def grammar() -> argparse.ArgumentParser:
    """Return the command line's grammar."""
    parser = argument_parser(
        "-m worker.phase", DESCRIPTION, examples=EXAMPLES, variables=TURNS, takes_json=False,
        exit_status=EXIT_STATUS,
    )  # fmt: skip
    actions = parser.add_subparsers(dest="action", required=True, metavar=" | ".join(ACTIONS))
    for name, meaning in ACTIONS.items():
        action = actions.add_parser(name, help=meaning, description=f"{meaning[0].upper()}{meaning[1:]}.")
        add_json(action)
        if name in {"advance", "back"}:
            _add_turn(action, forces=name == "advance")
    _add_report(actions.choices["report"])
    return parser


def _add_turn(action: argparse.ArgumentParser, *, forces: bool) -> None:
    if forces:
        action.add_argument(
            "--force", action="store_true", help="turn it although gates are not met; takes --reason"
        )
        action.add_argument(
            "--no-fall-back",
            action="store_true",
            help="let moved reads stay where they are, whatever a comparison finds",
        )
    action.add_argument(
        "--reason", metavar="TEXT", type=_bounded(LONGEST_REASON), help="why; recorded with the turn"
    )
    action.add_argument(
        "--actor",
        metavar="NAME",
        type=_bounded(LONGEST_ACTOR),
        default=own_name(),
        help="who; recorded (default: your login, and this machine)",
    )
    action.add_argument("--yes", action="store_true", help="do not ask")


def _add_report(action: argparse.ArgumentParser) -> None:
    action.add_argument(
        "--epoch", metavar="N", type=whole(most=2**63 - 1), help="of the turn with this number, not the last"
    )
    action.add_argument(
        "--html", metavar="FILE", type=Path, required=True, help="write it there; it needs nothing but itself"
    )


def _bounded(longest: int) -> Callable[[str], str]:
    """Return what reads a word that says something, and not too much."""

    def read(word: str) -> str:
        said = text(word).strip()
        if not 1 <= len(said) <= longest:
            raise argparse.ArgumentTypeError(f"must have 1 to {longest:,} characters")
        return said

    return read


def own_name() -> str:
    """Return who types this, as the operating system says; nothing proves it."""
    try:
        user = getpass.getuser()
    except (KeyError, OSError):  # a number without a name, as in a container
        user = f"user {os.getuid()}"
    return f"{user}@{platform.node()}".encode(errors="replace").decode()[:LONGEST_ACTOR]


def parse(words: Sequence[str]) -> argparse.Namespace:
    """Return the arguments, with `action`: one of ACTIONS."""
    parser = grammar()
    options = parser.parse_args(words)
    if getattr(options, "force", False) and options.reason is None:
        parser.error("--force takes --reason TEXT, which is recorded")
    return options
