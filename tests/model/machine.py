"""The machine: whatever users, the monolith, operators, workers and crashes can do, in any order."""

import asyncio
import json
import sys
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, cast

import asyncpg
import pytest
from hypothesis import strategies as st
from hypothesis.stateful import (
    Bundle,
    MultipleResults,
    RuleBasedStateMachine,
    initialize,
    multiple,
    precondition,
    rule,
)
from sqlalchemy.ext.asyncio import AsyncConnection

from api import collections as api
from api.gate.errors import CollectionNotFoundError
from api.write_statement import Write, carry_out
from shared import backfill_runs, dead_letters
from shared.audit_runs import AuditRun
from shared.backfill_runs import BackfillRun
from shared.events import EventType
from shared.projection import LEGACY_NAMES, NAMES
from tests.audit.pairs import audited, found
from tests.backfill.driving import chunk_of, started, take
from tests.backfill.rows import home_drift
from tests.legacy_rows import set_collection
from tests.model.model import REFUSED, Event, Legacy, Model, Settled, State
from tests.model.world import CRASHES, World
from tests.processes import HANG_SECONDS
from worker.dead_letters.upkeep import close_overtaken

Writing = Coroutine[Any, Any, object]

PROJECTS = ("p1", "p2", "p3")
MOST_COLLECTIONS = 3
MOST_WRITERS = 2

APPEND_POISON = """
    INSERT INTO outbox_events (aggregate_id, event_type, source, payload)
    SELECT collection_id, $2, $3, (jsonb_build_object('project_id', project_id, 'research_context', 'poison',
        'created_at', NULL, 'updated_at', NULL) || $4::jsonb) - $5
    FROM collections WHERE collection_id = $1
    RETURNING id
"""
# event type, what differs in the payload, what is left out of it, and why it is poison
POISON = {
    "unknown type": ("collection.renamed", {}, "", "malformed"),
    "no timestamp": ("collection.updated", {}, "updated_at", "malformed"),
    "nested text": ("collection.updated", {"research_context": {"a": 1}}, "", "malformed"),
    "bad timestamp": ("collection.updated", {"updated_at": "never"}, "", "refused"),
    "date out of range": ("collection.created", {"created_at": "999999-01-01"}, "", "refused"),
    "bad timestamp of a deletion": ("collection.deleted", {"updated_at": "never"}, "", "refused"),
}
INSERT = """
    INSERT INTO collections (collection_id, project_id, collection_name, description, created_by, is_active)
    VALUES ($1, $2, 'by hand', $3, 'owner', $4)
"""
LINK = """
    INSERT INTO project_collections (project_id, collection_id, research_context, tags)
    VALUES ($1, $2, 'linked', $3) ON CONFLICT DO NOTHING
"""
COPY = f"""
    INSERT INTO project_collections (project_id, collection_id, {NAMES})
    SELECT project_id, collection_id, {LEGACY_NAMES} FROM collections WHERE collection_id = $1 AND is_active
    ON CONFLICT DO NOTHING
"""  # noqa: S608 - constants
READ_EVENT = "SELECT * FROM outbox_events WHERE id = $1"
APPEND_AGAIN = """
    INSERT INTO outbox_events (id, aggregate_id, event_type, source, payload, created_at)
    OVERRIDING SYSTEM VALUE
    VALUES ($1, $2, $3, $4, $5, $6)
"""
HOLD = "SELECT id FROM outbox_events WHERE id = ANY($1) FOR UPDATE"

texts = st.sampled_from(["one", "two", "", None, "three", REFUSED])
projects = st.sampled_from(PROJECTS)
sizes = st.lists(st.sampled_from([1, 2, 3, 500]), min_size=1, max_size=3)
dice = st.integers(0, 1000)


@dataclass
class Writer:
    """A transaction that has drawn its event's id and is not committed yet."""

    connection: AsyncConnection
    collection_id: str
    event_id: int
    legacy: Legacy


class Machine(RuleBasedStateMachine):
    """Rules act on the world and on the model alike; every drain is judged by the model."""

    collections = Bundle("collections")

    world: World  # set by `of`

    @classmethod
    def of(cls, world: World) -> type["Machine"]:
        """Return the machine of this world."""
        return type("Machine", (cls,), {"world": world})

    def __init__(self) -> None:
        super().__init__()
        self.model = Model()
        self.writers: list[Writer] = []
        self.held: set[int] = set()
        self.copies: dict[int, tuple[object, ...]] = {}
        self.inserted = 0
        self.run: BackfillRun | None = None
        self.world.clear()

    @initialize(target=collections)
    def begin_in_sync(self) -> MultipleResults[str]:
        """Begin with two collections in sync, their rows enriched and one of them linked."""
        names = [str(self.create("p1", "begun")), str(self.create("p2", None))]
        self.drain([500], by_lane=False)
        self.link(names[0], "p3", 1)
        for which in range(3):
            self.enrich(which, which)
        return multiple(*names)

    # -- users, by the API -------------------------------------------------------------------------

    @precondition(lambda self: len(self.model.legacy) < MOST_COLLECTIONS)
    @rule(target=collections, project_id=projects, text=texts)
    def create(self, project_id: str, text: str | None) -> str:
        values = {"collection_name": "new", "description": text}
        row = self.world.run(api.create_collection(self.world.sync, "owner", project_id, values))
        self._written(row["collection_id"])
        return str(row["collection_id"])

    @rule(name=collections, text=texts)
    def update(self, name: str, text: str | None) -> None:
        self._write(
            name,
            lambda home: api.update_collection(self.world.sync, "owner", home, name, {"description": text}),
        )

    @rule(name=collections)
    def delete(self, name: str) -> None:
        self._write(name, lambda home: api.delete_collection(self.world.sync, "owner", home, name))

    def _update(self, name: str, text: str | None, home: str) -> Writing:
        return api.update_collection(self.world.sync, "owner", home, name, {"description": text})

    def _write(self, name: str, write: Callable[[str], Writing]) -> None:
        legacy = self.model.legacy.get(name)
        if self._is_locked(name):
            return
        if legacy is None or not legacy.is_active:
            with pytest.raises(CollectionNotFoundError):
                self.world.run(write("p1" if legacy is None else legacy.project_id))
            return
        self.world.run(write(legacy.project_id))
        self._written(name)

    def _written(self, name: str) -> None:
        """Take over the row as it was written, and the one event that was appended with it."""
        self._look_at(name)
        [(collection_id, event_id)] = self.world.taken()
        assert collection_id == name
        self.model.append_state(name, event_id)

    def _look_at(self, name: str) -> None:
        legacy = self.world.legacy(name)
        assert legacy is not None
        self.model.legacy[name] = legacy

    def _is_locked(self, name: str) -> bool:
        return any(writer.collection_id == name for writer in self.writers)

    # -- the monolith, with an event ---------------------------------------------------------------

    @rule(name=collections, text=texts, project_id=projects, is_active=st.booleans())
    def rewrite(self, name: str, text: str | None, project_id: str, is_active: bool) -> None:  # noqa: FBT001
        """Bring a collection back, move it to another home, or delete it there."""
        if self._is_locked(name):
            return
        writing = set_collection(self.world.engine, name, text, project_id=project_id, is_active=is_active)
        event_id = self.world.run(writing)
        self._look_at(name)
        self.model.append_state(name, event_id)

    @precondition(lambda self: len(self.writers) < MOST_WRITERS)
    @rule(name=collections, text=texts)
    def begin_writing(self, name: str, text: str | None) -> None:
        """Draw an event's id now, to be committed later or never."""
        legacy = self.model.legacy.get(name)
        if legacy is not None and legacy.is_active and not self._is_locked(name):
            self.writers.append(self.world.run(self._begun(name, legacy, text)))

    async def _begun(self, name: str, legacy: Legacy, text: str | None) -> Writer:
        connection = await self.world.engine.connect()
        await connection.exec_driver_sql("SELECT")  # only now does SQLAlchemy send its BEGIN
        raw = await connection.get_raw_connection()
        change = Write(EventType.UPDATED, "owner", legacy.project_id, name, {"description": text})
        row = await carry_out(cast("asyncpg.Connection", raw.driver_connection), change)
        created_at, updated_at = (datetime.fromisoformat(row[name]) for name in ("created_at", "updated_at"))
        state = State(row["description"], created_at, updated_at)
        return Writer(connection, name, row["event_id"], legacy._replace(state=state))

    @precondition(lambda self: self.writers)
    @rule(number=dice, commits=st.booleans())
    def end_writing(self, number: int, commits: bool) -> None:  # noqa: FBT001
        writer = self.writers.pop(number % len(self.writers))
        self.world.run(self._ended(writer, commits=commits))
        if commits:
            self.model.legacy[writer.collection_id] = writer.legacy
            self.model.append_state(writer.collection_id, writer.event_id)

    @staticmethod
    async def _ended(writer: Writer, *, commits: bool) -> None:
        await (writer.connection.commit() if commits else writer.connection.rollback())
        await writer.connection.close()

    # -- operators, without an event ---------------------------------------------------------------

    @rule(name=collections, text=texts)
    def describe_by_hand(self, name: str, text: str | None) -> None:
        self._by_hand(name, "UPDATE collections SET description = $2 WHERE collection_id = $1", text)

    @rule(name=collections, is_active=st.sampled_from([True, False, None]))
    def switch_by_hand(self, name: str, is_active: bool | None) -> None:  # noqa: FBT001
        self._by_hand(name, "UPDATE collections SET is_active = $2 WHERE collection_id = $1", is_active)

    @rule(name=collections, project_id=projects)
    def move_by_hand(self, name: str, project_id: str) -> None:
        self._by_hand(name, "UPDATE collections SET project_id = $2 WHERE collection_id = $1", project_id)

    def _by_hand(self, name: str, statement: str, value: object) -> None:
        if name in self.model.legacy and not self._is_locked(name):
            self.world.execute(statement, name, value)
            self._look_at(name)
            self.model.excused.add(name)

    @rule(name=collections)
    def remove_by_hand(self, name: str) -> None:
        if name in self.model.legacy and not self._is_locked(name):
            self.world.execute("DELETE FROM collections WHERE collection_id = $1", name)
            self.model.vanish(name)

    @precondition(lambda self: len(self.model.legacy) < MOST_COLLECTIONS)
    @rule(target=collections, project_id=projects, text=texts, is_active=st.sampled_from([True, True, None]))
    def insert_by_hand(self, project_id: str, text: str | None, is_active: bool | None) -> str:  # noqa: FBT001
        self.inserted += 1
        self._insert(f"hand-{self.inserted}", project_id, text, is_active)
        return f"hand-{self.inserted}"

    @rule(name=collections, project_id=projects, text=texts)
    def insert_again(self, name: str, project_id: str, text: str | None) -> None:
        """Bring a removed collection back under its old id."""
        if name not in self.model.legacy:
            self._insert(name, project_id, text, is_active=True)

    def _insert(self, name: str, project_id: str, text: str | None, is_active: bool | None) -> None:  # noqa: FBT001
        self.world.execute(INSERT, name, project_id, text, is_active)
        self._look_at(name)
        self.model.excused.add(name)

    @rule(name=collections)
    def copy_by_hand(self, name: str) -> None:
        """Bring a collection into the target, as another program would that writes both tables."""
        if name in self.model.legacy and not self._is_locked(name) and not self._is_refused(name):
            self.world.execute(COPY, name)
            self.model.target = self.world.actual().target

    @rule(name=collections, is_gone=st.booleans())
    def damage_home_row(self, name: str, is_gone: bool) -> None:  # noqa: FBT001
        legacy = self.model.legacy.get(name)
        home = None if legacy is None else (name, legacy.project_id)
        if home is None or home not in self.model.target:
            return
        where = "WHERE collection_id = $1 AND project_id = $2"
        if is_gone:
            self.world.execute(f"DELETE FROM project_collections {where}", *home)  # noqa: S608
            del self.model.target[home]
        else:
            self.world.execute(f"UPDATE project_collections SET research_context = 'x' {where}", *home)  # noqa: S608
            row = self.model.target[home]
            self.model.target[home] = row._replace(state=row.state._replace(context="x"))
        self.model.excused.add(name)

    # -- later phases: what must never change ------------------------------------------------------

    @rule(name=collections, project_id=projects, number=dice)
    def link(self, name: str, project_id: str, number: int) -> None:
        """Link the collection to a project that is not its home."""
        legacy = self.model.legacy.get(name)
        if legacy is not None and legacy.project_id != project_id and not self._is_locked(name):
            self.world.execute(LINK, project_id, name, json.dumps([number]))
            self.model.target = self.world.actual().target

    @rule(which=dice, number=dice)
    def enrich(self, which: int, number: int) -> None:
        """Set tags and mappings of any row."""
        if not self.model.target:
            return
        key = sorted(self.model.target)[which % len(self.model.target)]
        extras = json.dumps([number]), json.dumps({"q": number}), json.dumps({"h": number})
        self.world.execute(
            "UPDATE project_collections SET tags = $3, linked_project_question_ids = $4,"
            " linked_project_hypothesis_ids = $5 WHERE collection_id = $1 AND project_id = $2",
            *key,
            *extras,
        )
        self.model.target[key] = self.model.target[key]._replace(extras=" ".join(extras))

    # -- delivery ----------------------------------------------------------------------------------

    @rule(number=dice)
    def keep_a_copy(self, number: int) -> None:
        """Remember a pending event, to deliver it once more later."""
        if not self.model.pending:
            return
        pending = sorted(self.model.pending)
        event_id = pending[number % len(pending)]
        row = self.world.run(self.world.sql.fetchrow(READ_EVENT, event_id))
        columns = ("aggregate_id", "event_type", "source", "payload", "created_at")
        self.copies[event_id] = tuple(row[column] for column in columns)

    @rule(number=dice)
    def deliver_again(self, number: int) -> None:
        """Deliver an event that had its outcome once more, under its old id."""
        if ended := sorted(self.copies.keys() - self.model.pending):
            event_id = ended[number % len(ended)]
            self.world.execute(APPEND_AGAIN, event_id, *self.copies[event_id])
            self.model.append_again(event_id)

    @rule(numbers=st.sets(st.integers(0, 7), min_size=1))
    def hold_back(self, numbers: set[int]) -> None:
        """Let another transaction have some events in hand, so that younger ones overtake them."""
        if self.model.pending and not self.held:
            pending = sorted(self.model.pending)
            self.held = {pending[number % len(pending)] for number in numbers}
            self.world.run(self.world.holder.execute("BEGIN"))
            self.world.run(self.world.holder.execute(HOLD, list(self.held)))

    @rule()
    def let_go(self) -> None:
        if not self.held:
            return
        self.world.run(self.world.holder.execute("ROLLBACK"))
        self.held = set()

    @rule(name=collections, kind=st.sampled_from(sorted(POISON)), source=st.sampled_from(["api", "backfill"]))
    def poison(self, name: str, kind: str, source: str) -> None:
        if name not in self.model.legacy or self._is_locked(name):
            return
        event_type, differs, without, poison = POISON[kind]
        appending = self.world.sql.fetchval(
            APPEND_POISON, name, event_type, source, json.dumps(differs), without
        )
        event_id = self.world.run(appending)
        home = self.model.legacy[name].project_id
        is_deleted = event_type == EventType.DELETED
        self.model.append(Event(event_id, name, home, is_deleted, State("poison", None, None), poison))
        if is_deleted:
            self.model.excused.add(name)

    @rule(refusing=st.booleans())
    def refuse(self, refusing: bool) -> None:  # noqa: FBT001
        """Let the target refuse a text, or no more."""
        self.world.execute("DELETE FROM refused_texts")
        if refusing:
            self.world.execute("INSERT INTO refused_texts VALUES ($1)", REFUSED)
        self.model.refusing = refusing

    @precondition(lambda self: not self.writers)
    @rule(number=dice)
    def replay(self, number: int) -> None:
        """Replay a letter; one that is closed, or whose collection is gone, stays as it is."""
        if not self.model.letters:
            return
        letter = sorted(self.model.letters)[number % len(self.model.letters)]
        replay = self.world.run(self._replayed(letter))
        is_open = self.model.letters[letter] == "dead"
        name = self.model.events[letter].collection_id
        assert list(replay.closed) == ([] if is_open else [letter])
        assert set(replay.replayed) == ({letter} if is_open and name in self.model.legacy else set())
        for collection_id, event_id in self.world.taken():
            self.model.append_state(collection_id, event_id)
            self.model.letters[letter] = "replayed"

    async def _replayed(self, letter: int) -> dead_letters.Replay:
        async with self.world.engine.begin() as connection:
            return await dead_letters.replay(connection, [letter])

    @rule()
    def tend_letters(self) -> None:
        """Letters that were overtaken are closed, and no others."""
        closed = self.world.run(close_overtaken(self.world.engine))
        assert len(closed) == len(self.model.supersede())
        assert self.world.actual().letters == self.model.letters

    # -- workers -----------------------------------------------------------------------------------

    @rule(sizes=sizes, by_lane=st.booleans())
    def drain(self, sizes: list[int], by_lane: bool) -> None:  # noqa: FBT001
        self._settle(self.world.run(self.world.drained(sizes, by_lane=by_lane)))
        assert self.model.pending == self.held

    @rule(sizes=sizes, how=st.sampled_from(CRASHES), statement=st.integers(1, 14))
    def crash(self, sizes: list[int], how: str, statement: int) -> None:
        settled = self.world.run(self.world.crashed(sizes, how, statement))
        self._settle(settled, unheard=how == "answer lost")

    @rule(name=collections, text=texts, sizes=sizes)
    def write_while_draining(self, name: str, text: str | None, sizes: list[int]) -> None:
        legacy = self.model.legacy.get(name)
        if legacy is None or not legacy.is_active or self._is_locked(name):
            return
        settled = self.world.run(self._together(self._update(name, text, legacy.project_id), sizes))
        self._written(name)
        self._settle(settled)

    async def _together(self, writing: Writing, sizes: Sequence[int]) -> Settled:
        _, settled = await asyncio.gather(writing, self.world.drained(sizes))
        return settled

    def _settle(self, settled: Settled, *, unheard: bool = False) -> None:
        self.model.settle(settled, self.world.actual(), unheard=unheard)
        assert self.model.drift().keys() <= self.model.excused, "drift without a cause"

    # -- backfill ----------------------------------------------------------------------------------

    @precondition(lambda self: self.run is None)
    @rule()
    def start_backfill(self) -> None:
        self.run = self.world.run(self._started())

    async def _started(self) -> BackfillRun:
        return await take(self.world.engine, await started(self.world.engine))

    @precondition(lambda self: self.run is not None and not self.writers)
    @rule(most_rows=st.sampled_from([1, 2, 1000]))
    def backfill_chunk(self, most_rows: int) -> None:
        assert self.run is not None
        chunk = self.world.run(chunk_of(self.world.engine, self.run, most_rows))
        appended = self.world.taken()
        assert len(appended) == chunk.enqueued
        assert {name for name, _ in appended} <= self.model.unknown_to_target()
        for name, event_id in appended:
            self.model.append_state(name, event_id)
        self.model.guard(self.world.actual())
        if chunk.run.status == "finished":
            self.run = None

    @precondition(lambda self: self.run is not None)
    @rule()
    def cancel_backfill(self) -> None:
        self.world.run(self._cancelled())
        self.run = None

    async def _cancelled(self) -> None:
        async with self.world.engine.begin() as connection:
            await backfill_runs.cancel(connection)

    @precondition(lambda self: self.run is None and not self.writers)
    @rule()
    def backfill_all(self) -> None:
        """Nothing is in the way: whatever the target does not know is enqueued, and nothing else."""
        unknown = self.model.unknown_to_target()
        self.start_backfill()
        while self.run is not None:
            self.backfill_chunk(2)
        assert self.model.unknown_to_target() == set(), unknown
        assert self.model.unguarded() == set()

    # -- audit -------------------------------------------------------------------------------------

    @rule(slices=st.sampled_from([1, 2]))
    def audit(self, slices: int) -> None:
        """It finds what the model knows to differ, no more and no less, whatever is under way."""
        run = self.world.run(audited(self.world.engine, slices=slices))
        drift = self.model.drift()
        assert self.world.run(found(self.world.sql)) == drift
        differing = self.model.differences()
        assert run.verdict == ("drift" if drift else "pending" if differing else "in_sync")
        assert run.pending == len(differing) - len(drift)

    @precondition(lambda self: not self.writers)
    @rule(sizes=sizes)
    def repair(self, sizes: list[int], *, also_dead: bool = False) -> None:
        self.drain(sizes, by_lane=False)
        drift = self.model.drift()
        lettered = set() if also_dead else {name for name in drift if self.model.is_lettered(name)}
        run, settled = self.world.run(self._repaired(sizes, also_dead=also_dead))
        assert self.world.run(found(self.world.sql)) == drift
        for name, event_id in self.world.taken():
            self.model.append_state(name, event_id)
        self._settle(settled)
        left = self.model.drift().keys() & drift.keys()
        assert all(name in lettered or self._is_refused(name) for name in left), left
        assert run.repaired == len(drift) - len(left)
        assert (run.verdict == "drift") == bool(left)

    async def _repaired(self, sizes: Sequence[int], *, also_dead: bool) -> tuple[AuditRun, Settled]:
        """Repair beside relays that go on until it is done."""
        auditing = asyncio.create_task(
            audited(self.world.engine, repair=True, repair_dead=also_dead, patience_seconds=HANG_SECONDS)
        )
        settled = Settled()
        try:
            while not auditing.done():
                settled.batches += (await self.world.drained(sizes)).batches
                await asyncio.sleep(0.001)
            return await auditing, settled
        finally:
            auditing.cancel()
            await asyncio.wait([auditing])

    def _is_refused(self, name: str) -> bool:
        legacy = self.model.legacy[name]
        return self.model.refusing and legacy.is_active and legacy.state.context == REFUSED

    # -- the end ----------------------------------------------------------------------------

    def teardown(self) -> None:
        failed = sys.exc_info()[0] is not None
        try:
            self._clean_up()
            if not failed:
                self._all_agrees_at_last()
        finally:
            self.world.run(self.world.settle_down())

    def _clean_up(self) -> None:
        while self.writers:
            self.end_writing(0, commits=True)
        self.let_go()

    def _all_agrees_at_last(self) -> None:
        self.drain([3, 2, 1], by_lane=False)
        self.audit(1)
        self.repair([2, 2])
        self.refuse(refusing=False)
        self.repair([500], also_dead=True)
        assert self.model.differences() == {}
        assert self.world.run(home_drift(self.world.sql)) == []
        assert self.model.pending == set()
        assert self.model.ended == self.model.appended
