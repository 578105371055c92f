"""Three events of one collection for two workers, one perhaps committed late; and what must come of it."""

import itertools
import json
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import asyncpg

from tests.model.explorer import Schedule
from tests.model.stepping import SteppedConnection
from worker.relay.batch import Batch

KINDS = ("update", "delete", "move")
FIRST_ID = 11
WHEN = "2024-03-01T00:00:00.000001+00:00"
LINK = ("p3", "another project's", '["kept"]')

CREATE_RESET = """
    INSERT INTO collections (collection_id, project_id, collection_name, created_by, is_active)
    VALUES ('c', 'p1', 'name', 'owner', true);
    CREATE FUNCTION reset(known boolean, events jsonb) RETURNS void LANGUAGE sql AS $$
        DELETE FROM outbox_events;
        DELETE FROM outbox_dead_letters;
        DELETE FROM applied_versions;
        DELETE FROM project_collections;
        INSERT INTO project_collections (project_id, collection_id, research_context, tags)
        VALUES ('p3', 'c', 'another project''s', '["kept"]');
        INSERT INTO project_collections (project_id, collection_id, research_context)
        SELECT 'p1', 'c', 'old' WHERE known;
        INSERT INTO applied_versions (collection_id, version, project_id, is_deleted)
        SELECT 'c', 1, 'p1', false WHERE known;
        SELECT append(events);
    $$
"""
CREATE_APPEND = """
    CREATE FUNCTION append(events jsonb) RETURNS void LANGUAGE sql AS $$
        INSERT INTO outbox_events (id, aggregate_id, event_type, source, payload) OVERRIDING SYSTEM VALUE
        SELECT id, 'c', event_type, source, payload
        FROM jsonb_to_recordset(events) AS event (id bigint, event_type text, source text, payload jsonb)
    $$
"""
READ = """
    SELECT
        (SELECT coalesce(array_agg(ARRAY[project_id, research_context, tags::text] ORDER BY project_id), '{}')
            FROM project_collections) AS rows,
        (SELECT ARRAY[version::text, project_id, is_deleted::text] FROM applied_versions) AS guard,
        (SELECT coalesce(array_agg(id ORDER BY id), '{}') FROM outbox_dead_letters) AS dead,
        (SELECT count(*) FROM outbox_events) AS pending
"""


@dataclass(frozen=True)
class Event:
    """The collection's state after one of KINDS, as an outbox row; perhaps poison."""

    id: int
    project_id: str
    is_deleted: bool
    source: str = "api"
    poison: str | None = None

    @property
    def row(self) -> dict[str, Any]:
        payload = {
            "project_id": self.project_id,
            "research_context": f"text {self.id}",
            "created_at": WHEN,
            "updated_at": "not a time" if self.poison == "refused" else WHEN,
        }
        event_type = f"collection.{'deleted' if self.is_deleted else 'updated'}"
        if self.poison == "malformed":
            event_type = "collection.renamed"
        return {"id": self.id, "event_type": event_type, "source": self.source, "payload": payload}


@dataclass(frozen=True)
class Scene:
    """What happens to the collection, in the order of ids, and how the events are dealt out.

    Args:
        kinds: a permutation of KINDS.
        known: the collection has a home row and a version already.
        batches: for each worker the sizes of the batches that it runs.
        bulk: which event is in the bulk lane, where it is claimed after all others; 0: none.
        poison: which event is poison, and of which sort: malformed, or refused by PostgreSQL.
        late: which event is committed only while the workers are at work; 0: none.

    """

    kinds: tuple[str, ...]
    known: bool = True
    batches: tuple[tuple[int, ...], ...] = ((2,), (1,))
    bulk: int = 0
    poison: tuple[int, str] | None = None
    late: int = 0

    @property
    def events(self) -> list[Event]:
        project_id, events = "p1", []
        for number, kind in enumerate(self.kinds, 1):
            project_id = "p2" if kind == "move" else project_id
            poison = self.poison[1] if self.poison is not None and self.poison[0] == number else None
            source = "backfill" if self.bulk == number else "api"
            events.append(Event(FIRST_ID - 1 + number, project_id, kind == "delete", source, poison))
        return events

    @property
    def newest(self) -> Event:
        return [event for event in self.events if event.poison is None or self._never_written(event)][-1]

    @staticmethod
    def _never_written(event: Event) -> bool:
        """A deletion writes no timestamp, so none is refused."""
        return event.poison == "refused" and event.is_deleted

    def __str__(self) -> str:
        parts = [" ".join(self.kinds), "known" if self.known else "new"]
        parts.append(" | ".join(",".join(map(str, sizes)) for sizes in self.batches))
        parts += [f"bulk {self.bulk}"] if self.bulk else []
        parts += [f"{self.poison[1]} {self.poison[0]}"] if self.poison else []
        parts += [f"late {self.late}"] if self.late else []
        return "; ".join(parts)


def orders() -> Iterator[tuple[str, ...]]:
    """Yield the six orders of KINDS."""
    return itertools.permutations(KINDS)


async def install(connection: asyncpg.Connection) -> None:
    """Create the collection and what sets a scene; the projects are there."""
    await connection.execute(CREATE_APPEND)
    await connection.execute(CREATE_RESET)


async def set_up(connection: asyncpg.Connection, scene: Scene, writer: SteppedConnection | None) -> None:
    """Make the state in which every schedule of the scene begins; the late event is not committed."""
    punctual = [event.row for number, event in enumerate(scene.events, 1) if number != scene.late]
    await connection.execute("SELECT reset($1, $2)", scene.known, json.dumps(punctual))
    if writer is not None:
        await writer.execute("BEGIN; SELECT FROM collections FOR NO KEY UPDATE")
        await writer.execute("SELECT append($1)", json.dumps([scene.events[scene.late - 1].row]))


async def faults(
    connection: asyncpg.Connection, scene: Scene, schedule: Schedule, rest: Sequence[Batch]
) -> list[str]:
    """Return what is wrong after a schedule, when `rest` has drained what the workers left."""
    raised = [result for result in schedule.results.values() if isinstance(result, BaseException)]
    if raised:
        return [f"raised {raised}"]
    batches = [batch for result in schedule.results.values() for batch in result or ()]
    found = await connection.fetchrow(READ)
    assert found is not None
    checks = {
        "target": (found["rows"], _rows(scene)),
        "guard": (found["guard"], _guard(scene)),
        "dead letters": (found["dead"], _dead(scene, [*batches, *rest])),
        "pending": (found["pending"], 0),
    }
    wrong = [f"{name}: {is_} instead of {should}" for name, (is_, should) in checks.items() if is_ != should]
    return wrong + _outcome_faults(scene, [*batches, *rest])


def _rows(scene: Scene) -> list[list[str]]:
    newest = scene.newest
    home = [] if newest.is_deleted else [[newest.project_id, f"text {newest.id}", "[]"]]
    return [*home, list(LINK)]


def _guard(scene: Scene) -> list[str]:
    return [str(scene.newest.id), scene.newest.project_id, str(scene.newest.is_deleted).lower()]


def _dead(scene: Scene, batches: Sequence[Batch]) -> list[int]:
    """Return the letters that must be there: malformed ones always, others if somebody had to try them."""
    planted = {event.id for event in scene.events if event.poison is not None}
    verdicts = [(event_id, v.outcome) for batch in batches for event_id, v in batch.settlements.items()]
    return [event_id for event_id, outcome in verdicts if event_id in planted and outcome == "dead"]


def _outcome_faults(scene: Scene, batches: Sequence[Batch]) -> list[str]:
    verdicts = [(event_id, v.outcome) for batch in batches for event_id, v in batch.settlements.items()]
    times = Counter(event_id for event_id, _ in verdicts)
    wrong = [
        f"event {event.id}: {times[event.id]} outcomes" for event in scene.events if times[event.id] != 1
    ]
    for event_id, outcome in verdicts:
        event = next(event for event in scene.events if event.id == event_id)
        if outcome not in _allowed(scene, event):
            wrong.append(f"event {event_id}: {outcome}")
    return wrong


def _allowed(scene: Scene, event: Event) -> set[str]:
    """Return the outcomes an event may have: of the newest one there is no doubt."""
    if event.poison == "malformed":
        return {"dead"}
    if event == scene.newest:
        return {"applied"}
    if event.id > scene.newest.id:
        return {"dead"}
    if event.poison == "refused" and not event.is_deleted:
        return {"dead", "stale", "conflated"}
    return {"applied", "stale", "conflated"}
