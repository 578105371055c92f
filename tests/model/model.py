"""What must be true: both tables, the outbox and the guard as plain values, and what a drain may do to them.

The model knows no order of batches. Where PostgreSQL leaves a choice (which of two workers comes first,
which events share a batch) it allows all results that are right, and takes over the one that happened.
"""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import NamedTuple

from worker.relay.outcomes import Outcome

REFUSED = "refused"  # the text that a trigger of the target may refuse


class State(NamedTuple):
    """The projected columns of a collection: research_context, created_at, updated_at."""

    context: str | None
    created_at: datetime | None
    updated_at: datetime | None


class Legacy(NamedTuple):
    """A row of `collections`."""

    project_id: str
    is_active: bool
    state: State


class TargetRow(NamedTuple):
    """A row of `project_collections`; `extras` are the tags and both mappings, as one text."""

    state: State
    extras: str


class Guard(NamedTuple):
    """A row of `applied_versions`."""

    version: int
    project_id: str
    is_deleted: bool


@dataclass(frozen=True)
class Event:
    """A row of the outbox. `poison` says why it can never be applied, whatever refuses texts today."""

    id: int
    collection_id: str
    project_id: str
    is_deleted: bool
    state: State
    poison: str | None = None

    def shows(self, legacy: Legacy) -> bool:
        return self.poison is None and (self.project_id, not self.is_deleted, self.state) == legacy


Target = dict[tuple[str, str], TargetRow]  # by collection and project
NOT_SEEN = Guard(0, "", is_deleted=True)
NO_EXTRAS = "[] {} {}"


@dataclass
class Actual:
    """What the database holds after a step: target, guards, and the letters and pending events."""

    target: Target
    guards: dict[str, Guard]
    pending: set[int]
    letters: dict[int, str]  # their states


@dataclass
class Settled:
    """What the relays told: for each batch the outcome of each event."""

    batches: list[dict[int, Outcome]] = field(default_factory=list)

    @property
    def outcomes(self) -> list[tuple[int, Outcome]]:
        return [verdict for batch in self.batches for verdict in batch.items()]


@dataclass
class Model:
    """The state that the machine's rules bring about; `settle` holds a drain against it."""

    legacy: dict[str, Legacy] = field(default_factory=dict)
    target: Target = field(default_factory=dict)
    guards: dict[str, Guard] = field(default_factory=dict)
    events: dict[int, Event] = field(default_factory=dict)  # all there ever were
    pending: set[int] = field(default_factory=set)
    letters: dict[int, str] = field(default_factory=dict)
    appended: Counter[int] = field(default_factory=Counter)
    ended: Counter[int] = field(default_factory=Counter)
    excused: set[str] = field(default_factory=set)  # whoever may drift: hand-run SQL, refused texts
    refusing: bool = False

    # -- what rules do -----------------------------------------------------------------------------

    def append(self, event: Event) -> None:
        """Add a committed event. A state event takes the excuse away, unless its text may be refused."""
        self.events[event.id] = event
        self.pending.add(event.id)
        self.appended[event.id] += 1
        legacy = self.legacy.get(event.collection_id)
        if legacy is not None and event.shows(legacy):
            self.excused.discard(event.collection_id)
        if event.state.context == REFUSED:
            self.excused.add(event.collection_id)

    def append_state(self, collection_id: str, event_id: int) -> None:
        """Add an event of the collection's present state."""
        legacy = self.legacy[collection_id]
        event = Event(event_id, collection_id, legacy.project_id, not legacy.is_active, legacy.state)
        self.append(event)

    def append_again(self, event_id: int) -> None:
        """Add an event with an id that it had before; it takes no excuse away."""
        self.pending.add(event_id)
        self.appended[event_id] += 1

    def guard(self, actual: Actual) -> None:
        """Take over the guards that a backfill left: of what is in sync and had none, where it is at home."""
        for name in actual.guards.keys() - self.guards.keys():
            assert name in self.unguarded(), f"{name} needs no guard"
            assert actual.guards[name] == (0, self.legacy[name].project_id, False)
        assert {name: actual.guards.get(name) for name in self.guards} == self.guards, "a guard was changed"
        self.guards = actual.guards

    def vanish(self, collection_id: str) -> None:
        """Remove the collection's row; its rows of the target go with it."""
        del self.legacy[collection_id]
        self.excused.add(collection_id)  # should it come back
        self.target = {key: row for key, row in self.target.items() if key[0] != collection_id}

    def supersede(self) -> set[int]:
        """Close the letters that were overtaken by what was applied, and return their ids."""
        overtaken = {i for i, state in self.letters.items() if state == "dead" and self._is_past(i)}
        self.letters |= dict.fromkeys(overtaken, "superseded")
        return overtaken

    def _is_past(self, event_id: int) -> bool:
        guard = self.guards.get(self.events[event_id].collection_id)
        return guard is not None and guard.version > event_id

    # -- what they ask -----------------------------------------------------------------------------

    def is_poison(self, event: Event) -> bool:
        if event.poison == "malformed":
            return True
        if event.is_deleted:  # writes no value that could be refused
            return False
        return event.poison is not None or (self.refusing and event.state.context == REFUSED)

    def is_borne_out(self, event: Event) -> bool:
        """Return whether the legacy table agrees: no event gives a home, or takes a life, against it."""
        legacy = self.legacy.get(event.collection_id)
        if legacy is None:
            return True
        return event.project_id == legacy.project_id and not (legacy.is_active and event.is_deleted)

    def waits(self, collection_id: str) -> bool:
        return any(self.events[event_id].collection_id == collection_id for event_id in self.pending)

    def is_lettered(self, collection_id: str) -> bool:
        """Return whether a letter of the collection is open."""
        opened = (self.events[event_id] for event_id, state in self.letters.items() if state == "dead")
        return any(event.collection_id == collection_id for event in opened)

    def differences(self) -> dict[str, str]:
        """Return the kind of difference of each pair that differs, whether or not an event waits."""
        return {name: kind for name in self.legacy if (kind := self._difference(name)) is not None}

    def drift(self) -> dict[str, str]:
        """Return what an audit has to find: pairs that differ although no event for them waits."""
        return {name: kind for name, kind in self.differences().items() if not self.waits(name)}

    def unknown_to_target(self) -> set[str]:
        """Return what a backfill has to enqueue: what differs, and is not on its way as it is."""
        return {name for name in self.differences() if not self._is_on_its_way(name)}

    def unguarded(self) -> set[str]:
        """Return what is in sync although nothing says where its home row is."""
        in_sync = {name for name, row in self.legacy.items() if row.is_active} - self.differences().keys()
        return in_sync - self.guards.keys()

    def _difference(self, collection_id: str) -> str | None:
        legacy = self.legacy[collection_id]
        home = self.target.get((collection_id, legacy.project_id))
        if not legacy.is_active:
            return None if home is None else "orphaned"
        if home is None:
            return "missing"
        return None if home.state == legacy.state else "mismatched"

    def _is_on_its_way(self, collection_id: str) -> bool:
        waiting = [i for i in self.pending if self.events[i].collection_id == collection_id]
        return bool(waiting) and self.events[max(waiting)].shows(self.legacy[collection_id])

    # -- what relays may do ------------------------------------------------------------------------

    def settle(self, settled: Settled, actual: Actual, *, unheard: bool = False) -> None:
        """Hold what relays did since the last step against what they may do, and take it over.

        Args:
            settled: what they told.
            actual: what the database holds now.
            unheard: a batch may have been committed without being told.

        """
        told = self._judge_batches(settled)
        vanished = self.pending - actual.pending - set(told)
        assert unheard or not vanished, f"lost: {vanished}"
        assert actual.pending == self.pending - set(told) - vanished, "settled, but pending"
        drained = [*told, *vanished]
        self._judge_letters(told, vanished, actual)
        names = {self.events[event_id].collection_id for event_id in drained}
        for name in {
            *names,
            *self.guards,
            *actual.guards,
            *(key[0] for key in {**self.target, **actual.target}),
        }:
            mine = [
                self.events[event_id] for event_id in drained if self.events[event_id].collection_id == name
            ]
            self._judge_collection(name, mine, told, actual)
        self.pending, self.target, self.guards = actual.pending, actual.target, actual.guards
        self.ended.update(drained)

    def _judge_batches(self, settled: Settled) -> dict[int, Outcome]:
        told: dict[int, Outcome] = {}
        for batch in settled.batches:
            newest: dict[str, int] = {}
            for event_id in batch:
                name = self.events[event_id].collection_id
                newest[name] = max(event_id, newest.get(name, 0))
            final = {i: outcome for i, outcome in batch.items() if outcome is not Outcome.POSTPONED}
            for event_id, outcome in final.items():
                assert event_id in self.pending, f"{event_id} was not pending"
                assert event_id not in told, f"{event_id} has two outcomes"
                is_newest = newest[self.events[event_id].collection_id] == event_id
                assert not (outcome is Outcome.CONFLATED and is_newest), f"{event_id}: with what?"
                told[event_id] = outcome
        return told

    def _judge_letters(self, told: Mapping[int, Outcome], vanished: set[int], actual: Actual) -> None:
        died = {event_id for event_id, outcome in told.items() if outcome is Outcome.DEAD}
        changed = {i for i, state in actual.letters.items() if self.letters.get(i) != state}
        assert actual.letters.keys() >= self.letters.keys(), "a letter is gone"
        for event_id in changed - died - vanished:
            assert (self.letters[event_id], actual.letters[event_id]) == ("dead", "superseded")
            assert self._has_newer_letter(event_id, actual), f"what superseded {event_id}?"
        for event_id in died | (changed & vanished):
            state = "superseded" if self._has_newer_letter(event_id, actual) else "dead"
            assert actual.letters.get(event_id) == state, f"{event_id} died, but its letter is not {state}"
            assert self.is_poison(self.events[event_id]), f"{event_id} was no poison"
        self.letters = actual.letters

    def _has_newer_letter(self, event_id: int, actual: Actual) -> bool:
        name = self.events[event_id].collection_id
        later = [i for i, state in actual.letters.items() if i > event_id and state == "dead"]
        return any(self.events[i].collection_id == name for i in later)

    def _judge_collection(
        self, name: str, drained: Sequence[Event], told: Mapping[int, Outcome], actual: Actual
    ) -> None:
        before = self.guards.get(name, NOT_SEEN)
        after = actual.guards.get(name, NOT_SEEN)
        rows = {key[1]: row for key, row in self.target.items() if key[0] == name}
        found = {key[1]: row for key, row in actual.target.items() if key[0] == name}
        good = [
            event
            for event in drained
            if not self.is_poison(event) and self.is_borne_out(event) and event.id > before.version
        ]
        assert after.version >= before.version, f"{name}: the guard went back"
        self._judge_outcomes(name, drained, told, before, after)
        if name not in self.legacy:
            assert not found, f"{name} does not exist"
            assert after == before or after.version in {e.id for e in good if e.is_deleted}, name
        elif good:
            newest = max(good, key=lambda event: event.id)
            assert after == (newest.id, newest.project_id, newest.is_deleted), (
                f"{name}: {after}, not {newest}"
            )
            _judge_rows(name, before, good, rows, found)
        else:
            assert after == before, f"{name}: {after} out of nothing"
            assert found == rows, f"{name}: {found} out of {rows}"

    def _judge_outcomes(
        self, name: str, drained: Sequence[Event], told: Mapping[int, Outcome], before: Guard, after: Guard
    ) -> None:
        exists = name in self.legacy
        for event in drained:
            if event.id in told:
                allowed = self._allowed(event, before, after, exists=exists)
                assert told[event.id] in allowed, f"{event}: {told[event.id]}, not {allowed}"

    def _allowed(self, event: Event, before: Guard, after: Guard, *, exists: bool) -> set[Outcome]:
        passed_over = {Outcome.STALE, Outcome.CONFLATED}
        if event.poison == "malformed":
            return {Outcome.DEAD}
        if not self.is_borne_out(event):
            return {Outcome.OBSOLETE, Outcome.CONFLATED}
        if self.is_poison(event):
            return {Outcome.DEAD} if event.id > after.version and exists else {Outcome.DEAD, *passed_over}
        if not exists:
            return {Outcome.OBSOLETE, Outcome.APPLIED if event.is_deleted else Outcome.OBSOLETE, *passed_over}
        if event.id <= before.version:
            return passed_over
        return {Outcome.APPLIED} if event.id == after.version else {Outcome.APPLIED, *passed_over}


def _judge_rows(
    name: str,
    before: Guard,
    good: Sequence[Event],
    rows: Mapping[str, TargetRow],
    found: Mapping[str, TargetRow],
) -> None:
    """Judge the target's rows of one collection after the newest of the `good` events was applied last."""
    newest = max(good, key=lambda event: event.id)
    passed_through = {event.project_id for event in good if event is not newest}
    former = None if before.is_deleted else before.project_id
    for project_id in {*rows, *found, newest.project_id}:
        was, is_ = rows.get(project_id), found.get(project_id)
        if project_id == newest.project_id:
            _judge_home(name, newest, was, is_, may_be_new=_was_left(project_id, former, good, newest))
        elif project_id == former:
            assert is_ is None, f"{name}: its former home {former} still has {is_}"
        elif project_id in passed_through:
            assert is_ in (None, was), f"{name}: {is_} at {project_id}, where it passed through {was}"
        else:
            assert is_ == was, f"{name}: {was} at {project_id} became {is_}"


def _judge_home(
    name: str, newest: Event, was: TargetRow | None, is_: TargetRow | None, *, may_be_new: bool
) -> None:
    if newest.is_deleted:
        assert is_ is None, f"{name} was deleted, but has {is_}"
        return
    assert is_ is not None, f"{name} has no home row"
    assert is_.state == newest.state, f"{name}: {is_.state}, not {newest.state}"
    extras = {NO_EXTRAS} if was is None else {was.extras}
    allowed = extras | {NO_EXTRAS} if may_be_new else extras
    assert is_.extras in allowed, f"{name}: {is_.extras}, not {allowed}"


def _was_left(project_id: str, former: str | None, good: Iterable[Event], newest: Event) -> bool:
    """Say whether on the way to `newest` the row of its home may have been taken away and made anew."""
    others = [event for event in good if event is not newest]
    was_home = project_id == former or any(event.project_id == project_id for event in others)
    return was_home and any(event.project_id != project_id or event.is_deleted for event in others)
