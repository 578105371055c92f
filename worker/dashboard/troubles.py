"""Warnings and errors that have no place of their own on the page, by kind."""

from worker.dashboard.log_line import LogLine, cut
from worker.dashboard.page_state import Trouble

MOST_TROUBLES = 50
MOST_FIELDS = 20
LONGEST_NAME = 100
LONGEST_TEXT = 1000
LARGEST_EXACT = 2**53  # what a browser reads as the same number
NOT_SHOWN = {"timestamp", "level", "event", "schema_version"}
# Fields that divide an event into kinds.
DIVIDING = ("error", "duty", "lane", "logger", "kind", "sqlstate", "role", "application", "operation")


class Troubles:
    """How often each kind came, and the fields of its last line."""

    def __init__(self) -> None:
        self._kinds: dict[tuple[str, ...], Trouble] = {}

    def take(self, line: LogLine, at: float) -> None:
        event = cut(line["event"], LONGEST_NAME)
        kind = (event, *(cut(line.get(name), LONGEST_NAME) for name in DIVIDING))
        trouble = self._kinds.get(kind)
        if trouble is None:
            trouble = self._kinds[kind] = Trouble(event, "", 0, at, at, {})
        trouble.count += 1
        trouble.first_at = min(at, trouble.first_at)
        if at >= trouble.last_at:
            trouble.last_at, trouble.level = at, cut(line["level"], LONGEST_NAME)
            trouble.fields = _shown(line)
        if len(self._kinds) > MOST_TROUBLES:
            del self._kinds[min(self._kinds, key=lambda known: self._kinds[known].last_at)]

    def shown(self) -> list[Trouble]:
        return sorted(self._kinds.values(), key=lambda trouble: -trouble.last_at)


def _shown(line: LogLine) -> dict[str, object]:
    own = [(name, value) for name, value in line.items() if name not in NOT_SHOWN]
    return {cut(name, LONGEST_NAME): _value(value) for name, value in own[:MOST_FIELDS]}


def _value(value: object) -> object:
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, (int, float)) and -LARGEST_EXACT < value < LARGEST_EXACT:
        return value
    return cut(value, LONGEST_TEXT)
