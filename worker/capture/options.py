"""The command line of `python -m worker.capture`."""

import argparse
from collections.abc import Sequence

from worker.command_line.grammar import add_json, argument_parser

DESCRIPTION = """\
See the writes of `collections` that append no event: by triggers that an operator
installs, and that nothing needs. Without them no legacy table is touched.

A write that appends its event in its own transaction, before or after, is left
alone, and so is one that changes nothing that is projected."""

EXAMPLES = (
    ("install --mode count", "count who writes past the outbox"),
    ("status", "who did, how often, and when last"),
    ("install --mode append --sql", "print what would let it append for them, for a DBA to run"),
    ("remove", "leave the table as it was, to the byte"),
)

ACTIONS = {
    "status": "show whether it is installed, who wrote past the outbox, and what it cannot see",
    "install": "install it, or change its mode",
    "remove": "remove it; what was counted stays",
}
MODES = {
    "count": "the write is counted: by role, application, operation and minute",
    "append": "it is counted, and gets its event in its own transaction",
    "refuse": "it fails at COMMIT, with a sentence that says what to do instead; nothing is counted",
}
SQL = "print what it would run now, as SQL, and change nothing"


def grammar() -> argparse.ArgumentParser:
    """Return the command line's grammar."""
    parser = argument_parser("-m worker.capture", DESCRIPTION, examples=EXAMPLES, takes_json=False)
    actions = parser.add_subparsers(dest="action", required=True, metavar="status | install | remove")
    for name, meaning in ACTIONS.items():
        action = actions.add_parser(name, help=meaning, description=meaning.capitalize() + ".")
        add_json(action)
        if name == "install":
            said = "; ".join(f"{mode}: {does}" for mode, does in MODES.items())
            action.add_argument("--mode", choices=list(MODES), required=True, help=said)
        if name != "status":
            action.add_argument("--sql", action="store_true", help=SQL)
    return parser


def parse(words: Sequence[str]) -> argparse.Namespace:
    """Return the arguments, with `action`: one of ACTIONS."""
    return grammar().parse_args(words)
