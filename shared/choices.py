"""What the options of commands can be, and are unless given: for grammars, so this imports nothing."""

DEFAULT_MAX_PENDING = 20_000  # a backfill waits while this many of its events are pending
MOST_SLICES = 16  # that an audit cuts the tables into
LETTER_STATES = ("dead", "superseded", "replayed", "discarded")
