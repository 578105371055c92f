"""The answer: where the migration stands, in a word and a sentence, and the commands that go on."""

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Answer:
    """The answer. next_steps: commands, in the order in which to type them; none where all is done."""

    word: str
    sentence: str
    next_steps: Sequence[str] = ()

    @property
    def is_well(self) -> bool:
        """Return whether all is well, so that the next step of the migration may be taken."""
        return self.word == "in_sync"
