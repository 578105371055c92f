"""How old a proof, or a wait, may be: alike for the page from the log and the status from the database."""

LATE_AFTER_SECONDS = 60.0
OUTDATED_AFTER_SECONDS = 300.0
OUTDATED_AFTER_DURATIONS = 25  # workers audit more rarely where an audit takes long


def outdated_after(duration_seconds: float) -> float:
    """Return after how many seconds an audit of everything that took so long proves nothing any more."""
    return max(OUTDATED_AFTER_SECONDS, OUTDATED_AFTER_DURATIONS * duration_seconds)
