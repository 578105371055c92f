"""How every command shows a verdict or a state: one sentence, in the colour of its word.

The console leaves colours out where NO_COLOR is set, and where nobody sees them.
"""

from worker.command_line.console import stdout

GOOD, ATTENTION, BAD = "green", "yellow", "red"
# Words of the status, of audits, backfills, dead letters and preflight; every other one asks for attention.
TONES = {
    **dict.fromkeys(
        ("in_sync", "pending", "synced", "finished", "ok", "superseded", "replayed", "discarded"), GOOD
    ),
    **dict.fromkeys(
        ("drift", "failed", "stop", "dead", "stuck", "stopped", "unfit", "read_only", "database_away",
         "fell_back", "reads_differ", "not_migrated", "rollback_interrupted", "blind", "missing",
         "mismatched", "orphaned"), BAD
    ),
}  # fmt: skip


def tone(word: str | None) -> str:
    """Return the colour of a verdict or a state."""
    return TONES.get(word or "", ATTENTION)


def say_verdict(word: str | None, sentence: str) -> None:
    """Print the sentence as one line of the result."""
    stdout.say(sentence, style=f"bold {tone(word)}")
