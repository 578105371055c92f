"""The command line of `python -m worker.audit`, and of `findings`, which shows what an audit wrote down."""

import argparse
from collections.abc import Sequence

from shared.choices import MOST_SLICES
from shared.pair import IN_WORDS
from worker.command_line.grammar import argument_parser, seconds, text, whole

MODULE = "-m worker.audit"
DESCRIPTION = f"""\
Prove, pair by pair and while writes go on, that project_collections shows
exactly what collections holds: {IN_WORDS} of
every home row. Nothing is locked. A pair that differs while an event for it
waits is counted as pending; it is no drift.

Each finding is printed like a diff: what project_collections holds (-), and
what it should hold (+)."""
EXAMPLES = (
    ("", "compare all pairs, and show what differs"),
    ("--repair", "fix what differs, and compare it again"),
    ("--watch --interval 10", "a line every ten seconds: verdict, pairs, and since when"),
    ("findings 5", "what audit 5 found"),
)
OF_FINDINGS = """\
Show what an audit that has ended wrote down of what it found, in the order of
the ids: all that it repaired, or else the first thousand, and of a worker's own
audits the first twenty."""
EXAMPLES_OF_FINDINGS = (
    ("5", "the first findings of audit 5"),
    ("5 --after old-7 --findings 100", "the next hundred behind an id"),
)
FINDINGS = 20
MOST_FINDINGS = 10_000


def grammar() -> argparse.ArgumentParser:
    """Return the command line's grammar."""
    parser = argument_parser(MODULE, DESCRIPTION, examples=EXAMPLES)
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
        type=whole(1, MOST_SLICES),
        default=1,
        help=f"compare N slices of the tables at once (default 1, at most {MOST_SLICES})",
    )
    _add_findings(parser)
    return parser


def findings_grammar() -> argparse.ArgumentParser:
    """Return the grammar of `findings`."""
    parser = argument_parser(f"{MODULE} findings", OF_FINDINGS, examples=EXAMPLES_OF_FINDINGS)
    parser.add_argument("run", metavar="RUN", type=whole(most=2**63 - 1), help="the audit's number")
    parser.add_argument("--after", metavar="ID", type=text, help="only those behind this collection's id")
    _add_findings(parser)
    return parser


def _add_findings(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--findings",
        metavar="N",
        type=whole(0, MOST_FINDINGS),
        default=FINDINGS,
        help="show at most N findings (default %(default)s)",
    )


def parse(words: Sequence[str]) -> argparse.Namespace:
    """Return the arguments, with `action`: audit or findings.

    Raises:
        SystemExit: with status 2, after saying why these options do not go together.

    """
    if words[:1] == ["findings"]:
        return findings_grammar().parse_args(words[1:], argparse.Namespace(action="findings"))
    parser = grammar()
    options = parser.parse_args(words, argparse.Namespace(action="audit"))
    if options.interval is not None and not options.watch:
        parser.error("--interval needs --watch")
    if options.repair_dead and not options.repair:
        parser.error("--repair-dead needs --repair")
    return options
