"""What the command prints for people: its progress, its results, and what to do next."""

import argparse
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console

from shared.audit_runs import AuditRun
from shared.backfill_runs import BackfillRun
from shared.process.orderly import SUCCESS
from shared.verdict import words
from worker.backfill.dry_run import DryRun
from worker.backfill.machine import as_json
from worker.backfill.speed import Speed, eta_seconds
from worker.command_line.bar import Bar
from worker.command_line.console import print_json, stdout
from worker.command_line.verdict import say_verdict

GOOD_VERDICTS = ("in_sync", "pending")  # pending: live writes on their way
RESUME_OR_CANCEL = "Go on with `python -m worker.backfill --resume`, or give it up with --cancel."
NONE_YET = "No backfill has run yet."
PROCESS = re.compile(r"(.+):(\d+):[0-9a-f]+")  # see worker/vitals/own_name.py


@contextmanager
def watching(console: Console) -> Iterator[Callable[[BackfillRun | DryRun], None]]:
    """Draw a bar while the block lasts; yields what is to be called with the run as it goes on."""
    speed = Speed()
    with Bar(console, stays=True) as bar:

        def show(run: BackfillRun | DryRun) -> None:
            rows_a_second = speed.sample(run.processed)
            total = max(run.planned, run.processed)  # rows inserted since its start may be among them
            bar.show(_progress(run, rows_a_second), run.processed, total, held_back(run) or "")

        yield show


def _progress(run: BackfillRun | DryRun, rows_a_second: float | None) -> str:
    events = "would be enqueued" if isinstance(run, DryRun) else "enqueued"
    shown = [percent(run), f"{run.processed:,}/{run.planned:,} rows", f"{run.enqueued:,} {events}"]
    if rows_a_second is not None:
        left = as_time(eta_seconds(run.planned, run.processed, rows_a_second))
        shown += [rate(rows_a_second), f"{left} left"]
    return "  ".join(shown)


def percent(run: BackfillRun | DryRun) -> str:
    """Return how much is done; before the end never all of it."""
    ended = run.finished if isinstance(run, DryRun) else run.status == "finished"
    return "100 %" if ended else words.percent(run)


def rate(rows_a_second: float) -> str:
    return f"{rows_a_second:,.0f} rows/s"


def held_back(run: BackfillRun | DryRun) -> str | None:
    """Return what the run waits for, or else what slows it; None: nothing but the speed of PostgreSQL."""
    if isinstance(run, DryRun):
        return None
    if run.throttled_by:
        return f"waits: {run.throttled_by}"
    return run.slowed_by and f"slowed by {run.slowed_by}"


def run_by(run: BackfillRun) -> str:
    """Return which process drives the run, or drove it last."""
    kind = "a worker" if run.in_worker else "a command"
    if run.driver is None:
        return f"{kind}; none has taken it yet"
    named = PROCESS.fullmatch(run.driver)
    return f"{kind}, {run.driver}" if named is None else f"{kind} on {named[1]} (pid {named[2]})"


def as_time(seconds: float | None) -> str:
    """Return h:mm:ss, or `--:--` when it is not known."""
    if seconds is None:
        return "--:--"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


def kinds(counted: BackfillRun | DryRun | AuditRun) -> str:
    """Return how many rows of each kind there were, in words."""
    return f"{counted.missing:,} missing, {counted.mismatched:,} mismatched, {counted.orphaned:,} orphaned"


def summary(run: BackfillRun) -> str:
    """Return in one sentence what the run has done."""
    return (
        f"Backfill {run.id}: {run.processed:,} of {run.planned:,} rows looked at, {run.enqueued:,} enqueued"
        f" ({kinds(run)}), {run.skipped:,} needed nothing; {as_time(run.duration_seconds)}."
    )


def dry_run_summary(result: DryRun) -> str:
    """Return in one sentence what a run would do."""
    return (
        f"Dry run: of {result.processed:,} rows {result.enqueued:,} would be enqueued ({kinds(result)}),"
        f" {result.skipped:,} need nothing. Nothing was written."
    )


def what_now(run: BackfillRun) -> str:
    """Return in which state an unfinished or cancelled run was left, and what to do next."""
    if run.status == "paused":
        return f"Backfill {run.id} is paused. {RESUME_OR_CANCEL}"
    if run.status == "cancelled":
        return f"Backfill {run.id} was cancelled. A new one begins anew; what is in sync costs it nothing."
    if run.is_driven:
        return (
            f"Backfill {run.id} is being run by {run_by(run)}. Look with --follow, or stop it with --pause."
        )
    if not run.has_driver and run.in_worker:
        return f"Backfill {run.id} waits for a worker. Start one, or go on here with --resume."
    if not run.has_driver:
        return f"Backfill {run.id} is not finished. {RESUME_OR_CANCEL}"
    return (
        f"Backfill {run.id} is not finished, and what ran it, {run_by(run)}, has been silent for"
        f" {run.heartbeat_age_seconds:.0f} s. {RESUME_OR_CANCEL}"
    )


def rate_sentence(run: BackfillRun) -> str:
    """Return what a run whose rate was changed does from now on."""
    bound = "at any speed" if run.rate is None else f"at {run.rate:,} rows a second at most"
    when = "once it is resumed" if run.status == "paused" else "from its next chunk on"
    return f"Backfill {run.id} goes on {bound}, {when}."


def show_result(arguments: argparse.Namespace, run: BackfillRun | None, sentence: str) -> int:
    """Print the result: the sentence, or for a machine the run."""
    if arguments.json:
        print_json({"status": None} if run is None else as_json(run))
    elif run is None:
        stdout.say(sentence)
    else:
        say_verdict(run.status, sentence)
    return SUCCESS
