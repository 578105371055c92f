"""Phase 1 as the operators' runbook runs it: fill `project_collections` and prove it, or take it back."""

import argparse
import sys
from functools import partial
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))  # a script's own directory stands there

from shared.process.late_imports import late_imports
from shared.process.orderly import orderly
from worker.command_line.grammar import argument_parser

NAME = "migrations/phase1_backfill_project_collections.py"
DESCRIPTION = """\
Without options: enqueue an event for every collection that project_collections
misses or shows differently, wait until the workers have applied them, compare
every collection with its row, and print the statistics. A worker must be
running (python -m worker). Interrupted or killed, it goes on where it stopped
when it is called again; what is in sync is left alone, so it may be called at
any time, as often as you like.

With --rollback: show what leaving phase 1 would remove, ask, and do it. Where
nobody can be asked, nothing is removed unless --yes is given. Rows go that this
system made and nobody enriched with tags or mappings; the others are kept and
listed. The table `collections` is never touched. Stop the workers first. While
reads are moved it is refused; a phase of the cutover behind Outbox ends with it.
Afterwards this script without options brings everything back."""
EXAMPLES = (
    ("--dry-run", "count what is to be brought over"),
    ("", "bring it over, and prove it"),
    ("--rollback --dry-run", "see what leaving phase 1 would remove"),
    ("--rollback --yes", "take phase 1 back without asking"),
)


def grammar() -> argparse.ArgumentParser:
    parser = argument_parser(NAME, DESCRIPTION, examples=EXAMPLES)
    parser.add_argument("--dry-run", action="store_true", help="show what would be done; change nothing")
    parser.add_argument(
        "--rollback", action="store_true", help="take phase 1 back, after showing what goes, and asking"
    )
    parser.add_argument("--yes", action="store_true", help="with --rollback: do not ask")
    return parser


def parse(words: list[str]) -> argparse.Namespace:
    parser = grammar()
    options = parser.parse_args(words)
    if options.yes and not options.rollback:
        parser.error("--yes goes with --rollback")
    if options.yes and options.dry_run:
        parser.error("--yes and --dry-run exclude each other")
    return options


if __name__ == "__main__":
    with orderly():
        arguments = parse(sys.argv[1:])
        with late_imports():
            from worker.command_line.run import run_command
            from worker.phase1 import execute
        sys.exit(run_command("phase1", partial(execute, arguments)))
