"""What a rollback has done so far, or would do."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from sqlalchemy import Row

from shared.phase.phases import Phase

LISTED_ROWS = 20


@dataclass(frozen=True, slots=True)
class KeptRow:
    """A row of the target that stays, and why."""

    project_id: str
    collection_id: str
    reason: str


@dataclass(slots=True)
class Rollback:
    """What was done so far, or would be; `listed` holds the first of the rows that stay.

    phase: the one of the cutover in which it began; None: not known.
    """

    dry_run: bool
    phase: Phase | None = None
    removed: int = 0
    kept_enriched: int = 0
    kept_found: int = 0
    kept_links: int = 0
    discarded_events: int = 0
    listed: list[KeptRow] = field(default_factory=list)

    @property
    def kept(self) -> int:
        """How many rows of the target stay."""
        return self.kept_enriched + self.kept_found + self.kept_links

    @property
    def turns_phase(self) -> bool:
        """Whether the phase goes back to Outbox by it."""
        return self.phase in {Phase.VERIFIED, Phase.SHADOW_READS}

    def keep(self, rows: Sequence[Row[Any]]) -> None:
        """Count rows that stay. One that was ours and stayed was enriched until a moment ago."""
        kinds = Counter(row.kind for row in rows)
        self.kept_links += kinds["link"]
        self.kept_found += kinds["found"]
        self.kept_enriched += kinds["enriched"] + kinds["ours"]
        room = LISTED_ROWS - len(self.listed)
        self.listed += [KeptRow(row.project_id, row.collection_id, _reason(row)) for row in rows[:room]]

    def counts(self) -> dict[str, object]:
        """Return the counts by the names of the log and of --json."""
        return {
            "removed": self.removed,
            "kept_enriched": self.kept_enriched,
            "kept_found": self.kept_found,
            "kept_links": self.kept_links,
            "discarded_events": self.discarded_events,
            "dry_run": self.dry_run,
        }


def _reason(row: Row[Any]) -> str:
    match row.kind:
        case "link":
            return "links the collection to another project"
        case "found":
            return "was there before this system, or was put there by another program"
        case _:
            return f"was enriched: {row.enriched or 'until a moment ago'}"
