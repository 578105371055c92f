"""The answer: where the migration stands, in a word and a sentence, and the commands that go on."""

import re
from collections.abc import Sequence
from dataclasses import dataclass

BEGINNING = re.compile(r"[:,.](?: |$)| \(")


@dataclass(frozen=True, slots=True)
class Answer:
    """The answer. next_steps: commands, as one types them; the last may look at what is next.

    short: its title, where that is not how the sentence begins.
    """

    word: str
    sentence: str
    next_steps: Sequence[str] = ()
    short: str | None = None

    @property
    def title(self) -> str:
        """Return the verdict in a few words: the sentence, up to where it says more."""
        return self.short or BEGINNING.split(self.sentence, maxsplit=1)[0]

    @property
    def is_well(self) -> bool:
        """Return whether all is well, so that the next step of the migration may be taken."""
        return self.word == "in_sync"
