"""The dead letters: events that died, and what became of their letters."""

from shared.verdict.facts import Letter
from worker.dashboard.log_line import BrokenLineError, LogLine, cut
from worker.dashboard.page_state import DeadLetter

MOST_LETTERS = 500
MOST_CLOSINGS = 20_000
LONGEST_ID = 200
LONGEST_TEXT = 1000
CLOSINGS = {
    "dead_letters_superseded": "superseded",
    "dead_letters_replayed": "replayed",
    "dead_letters_discarded": "discarded",
}


class DeadLetters:
    """The newest letters. A letter's end may be read before its event's death: other processes write it."""

    def __init__(self) -> None:
        self._letters: dict[int, DeadLetter] = {}
        self._closed: dict[int, tuple[str, float]] = {}
        self.total = 0

    def died(self, line: LogLine, at: float) -> None:
        self.total += 1
        self._letters[line["event_id"]] = DeadLetter(
            event_id=line["event_id"],
            at=at,
            collection_id=cut(line["collection_id"], LONGEST_ID),
            project_id=None if line["project_id"] is None else cut(line["project_id"], LONGEST_ID),
            event_type=cut(line["event_type"], LONGEST_ID),
            source=cut(line["source"], LONGEST_ID),
            sqlstate=None if line.get("sqlstate") is None else cut(line["sqlstate"], LONGEST_ID),
            error=cut(line.get("error") or "", LONGEST_TEXT),
        )
        if len(self._letters) > MOST_LETTERS + MOST_LETTERS // 5:
            newest = sorted(self._letters.values(), key=lambda letter: letter.at)[-MOST_LETTERS:]
            self._letters = {letter.event_id: letter for letter in newest}

    def closed(self, line: LogLine, at: float) -> None:
        """Take a line that names letters which are open no longer."""
        if not all(type(event_id) is int for event_id in line["event_ids"]):
            raise BrokenLineError
        for event_id in line["event_ids"]:
            if event_id not in self._closed or at >= self._closed[event_id][1]:
                self._closed[event_id] = (CLOSINGS[line["event"]], at)
        while len(self._closed) > MOST_CLOSINGS:
            del self._closed[next(iter(self._closed))]

    def shown(self, none_open_at: float | None) -> list[DeadLetter]:
        """Return the newest letters, the newest first.

        Args:
            none_open_at: when a worker counted the open ones and found none; None: the newest count was
                another. What died before is `closed`, where no line says how.

        """
        for letter in self._letters.values():
            if letter.event_id in self._closed:
                letter.state, letter.closed_at = self._closed[letter.event_id]
            elif letter.state == "dead" and none_open_at is not None and letter.at <= none_open_at:
                letter.state = "closed"
        return sorted(self._letters.values(), key=lambda letter: -letter.at)[:MOST_LETTERS]

    def open_ones(self, number: int) -> list[Letter]:
        """Return those that are open as far as lines say, by id: of more than `number` the newest.

        One of a collection whose letter was replayed before is taken for that replay's.
        """
        replayed = {one.collection_id: one.at for one in self._letters.values() if one.state == "replayed"}
        dead = sorted(
            (one for one in self._letters.values() if one.state == "dead"), key=lambda one: one.event_id
        )
        return [
            Letter(
                one.event_id,
                one.collection_id,
                one.sqlstate,
                is_replay=one.source == "repair" and replayed.get(one.collection_id, one.at) < one.at,
            )
            for one in dead[max(len(dead) - number, 0) :]
        ]

    def died_at(self, event_id: int) -> float:
        return self._letters[event_id].at

    def open_since(self, counted: int | None, counted_at: float) -> int:
        """Return how many letters are open: those counted at a moment, and what happened since."""
        if counted is None:
            return sum(letter.state == "dead" for letter in self._letters.values())
        died = sum(letter.state == "dead" and letter.at > counted_at for letter in self._letters.values())
        closed = sum(
            letter.at <= counted_at < letter.closed_at
            for letter in self._letters.values()
            if letter.closed_at is not None
        )
        return max(counted + died - closed, 0)
