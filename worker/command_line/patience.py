"""Waiting until PostgreSQL is back, in commands that go on until they are ended."""

import contextlib
from collections.abc import Iterator

from shared.postgres.faults import is_transient, sqlstate
from worker.command_line.console import stderr


class Patience:
    """Suppresses faults that end by themselves; prints when they begin, and when they have ended."""

    def __init__(self) -> None:
        self.is_away = False

    @contextlib.contextmanager
    def waiting(self) -> Iterator[None]:
        """Try the block; afterwards `is_away` is whether it is to be tried again, after a rest."""
        try:
            yield
        except Exception as error:
            if not is_transient(error):
                raise
            if not self.is_away:
                what = sqlstate(error) or type(error).__name__
                stderr.say(f"PostgreSQL is away or busy ({what}). This goes on when it is back.")
            self.is_away = True
        else:
            if self.is_away:
                stderr.say("PostgreSQL is back.")
            self.is_away = False
