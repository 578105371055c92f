"""The phases, in their order, by the words of docs/phases.md."""

from enum import StrEnum


class Phase(StrEnum):
    """Where the cutover is; reads come from `project_collections` in the last one alone."""

    LEGACY_ONLY = "legacy_only"
    OUTBOX = "outbox"
    VERIFIED = "verified"
    SHADOW_READS = "shadow_reads"
    READS_MOVED = "reads_moved"

    @property
    def number(self) -> int:
        return ORDER.index(self)

    @property
    def following(self) -> "Phase | None":
        """Return the phase that `advance` leads to; None behind the last."""
        return ORDER[self.number + 1] if self.number + 1 < len(ORDER) else None

    @property
    def previous(self) -> "Phase | None":
        """Return the phase that `back` leads to; None before the first."""
        return ORDER[self.number - 1] if self.number else None


ORDER = tuple(Phase)
TITLES = {
    Phase.LEGACY_ONLY: "Legacy only",
    Phase.OUTBOX: "Outbox",
    Phase.VERIFIED: "Backfilled and verified",
    Phase.SHADOW_READS: "Shadow reads",
    Phase.READS_MOVED: "Reads moved",
}
# Lists are sampled and compared in these.
COMPARED = (Phase.SHADOW_READS, Phase.READS_MOVED)
