"""docs/metrics.md, read: which metrics there are, of which type and with which labels."""

import re
from dataclasses import dataclass

from tests.forked import ROOT

PAGE = (ROOT / "docs" / "metrics.md").read_text(encoding="utf-8")
ROW = re.compile(r"\| `(?P<name>\w+)` \| (?P<type>\w+) \| (?P<labels>[^|]*) ?\| (?P<meaning>[^|]+) \|")


@dataclass(frozen=True)
class Documented:
    """A row of one of the page's tables."""

    name: str
    type: str
    labels: tuple[str, ...]

    def series(self) -> set[tuple[str, frozenset[str]]]:
        """Return the names as they stand in a query, each with its labels."""
        labels = frozenset(self.labels)
        if self.type != "histogram":
            return {(self.name, labels)}
        return {
            (f"{self.name}_bucket", labels | {"le"}),
            (f"{self.name}_sum", labels),
            (f"{self.name}_count", labels),
        }


def documented(*sections: str) -> list[Documented]:
    """Read the tables of these sections, in the order of the page."""
    parts = {part.partition("\n")[0]: part for part in PAGE.split("\n## ")}
    return [
        Documented(row["name"], row["type"], tuple(re.findall(r"`(\w+)`", row["labels"])))
        for section in sections
        for row in ROW.finditer(parts[section])
    ]
