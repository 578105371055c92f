"""Findings whose event died: a repair would append the same state, and it would die of the same cause."""

from collections.abc import Sequence
from dataclasses import dataclass, field

from shared.verdict.commands import LETTERS
from worker.audit.findings import Finding

MOST_NAMED = 5


@dataclass(slots=True)
class DeadEvents:
    """How many of a run's findings have an open dead letter, and the letters of the first of them.

    repair: whether the run repairs; then it has passed over these.
    """

    repair: bool = False
    findings: int = 0
    letters: list[int] = field(default_factory=list)

    def add(self, findings: Sequence[Finding]) -> None:
        """Count those of these findings whose event died."""
        letters = [finding.dead_letter for finding in findings if finding.dead_letter is not None]
        self.findings += len(letters)
        self.letters += letters[: MOST_NAMED - len(self.letters)]

    def reasons(self, found: int) -> list[str]:
        """Return what to do about them and, where nothing was repaired, about the others of `found`."""
        if not self.findings:
            return []
        of_them = "it" if self.findings == 1 else "them"
        more = f" and {self.findings - len(self.letters):,} more" if self.findings > len(self.letters) else ""
        letters = f"dead letter{'' if self.findings == 1 else 's'} {', '.join(map(str, self.letters))}{more}"
        first = self.letters[0]
        chosen = f"--like {first}" if more else " ".join(map(str, self.letters))
        todo = (
            f"Of {self.findings:,} the event died ({letters}), and --repair passes over {of_them}:"
            f" see `{LETTERS} show {first}`, fix what the reason names, then `{LETTERS} replay {chosen}`."
        )
        if self.repair or self.findings >= found:
            return [todo]
        return [todo, "Fix the others with --repair."]
