"""What is written: the same changes, in the same order for each key, for every system."""

import json
import random
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from typing import Any

PROJECT = "benchmark"
MIX = {"created": 60, "updated": 30, "deleted": 10}  # percent
REST = 50  # writes that pass before a key is written to again: half a second at 100 a second

# With the names of a driver's placeholders filled in. A deletion is a soft one: a hard one would cascade
# to the target, and hide a lost event. A writer takes the row's lock before it sends the change.
LEGACY = {
    "created": """
        INSERT INTO collections
            (collection_id, project_id, collection_name, description, created_by, is_active)
        VALUES ({collection_id}, {project_id}, 'benchmark', {description}, {project_id}, true)
        RETURNING project_id, collection_id, description, created_at, updated_at
    """,
    "updated": """
        UPDATE collections SET description = {description}, updated_at = clock_timestamp()
        WHERE collection_id = {collection_id} AND project_id = {project_id}
        RETURNING project_id, collection_id, description, created_at, updated_at
    """,
    "deleted": """
        UPDATE collections
        SET is_active = false, description = {description}, updated_at = clock_timestamp()
        WHERE collection_id = {collection_id} AND project_id = {project_id}
        RETURNING project_id, collection_id, description, created_at, updated_at
    """,
}


@dataclass(frozen=True)
class Change:
    """One write: what happens to which collection. Numbers count the writes of one plan."""

    number: int
    kind: str
    collection_id: str

    @property
    def values(self) -> dict[str, str]:
        return {
            "collection_id": self.collection_id,
            "project_id": PROJECT,
            "description": f"text {self.number}",
        }


def mixed(count: int) -> Iterator[Change]:
    """Yield creations, updates and deletions by `MIX`; those of a key are at least `REST` writes apart."""
    chance = random.Random(1)  # noqa: S311 - the same for every system
    at_rest: list[str] = []
    busy: deque[str | None] = deque()
    for number in range(count):
        [kind] = chance.choices(list(MIX), list(MIX.values()))
        if kind == "created" or not at_rest:
            kind, key = "created", f"collection-{number}"
        else:
            key = at_rest.pop(chance.randrange(len(at_rest)))
        busy.append(None if kind == "deleted" else key)
        if len(busy) > REST and (rested := busy.popleft()) is not None:
            at_rest.append(rested)
        yield Change(number, kind, key)


def hot(count: int, keys: int) -> Iterator[Change]:
    """Yield a creation of each key, updates of random ones, and a deletion of every tenth as the last."""
    chance = random.Random(2)  # noqa: S311 - the same for every system
    names = [f"hot-{key}" for key in range(keys)]
    doomed = names[::10]
    for number in range(count):
        if number < keys:
            yield Change(number, "created", names[number])
        elif number < count - len(doomed):
            yield Change(number, "updated", chance.choice(names))
        else:
            yield Change(number, "deleted", doomed[number - count])


def as_event(change: Change, row: Any) -> dict[str, Any]:  # noqa: ANN401 - a row of any driver
    """Make the event of a change from the row as it is now: its full state, as JSON can hold it."""
    project_id, collection_id, description, created_at, updated_at = row
    return {
        "number": change.number,
        "kind": change.kind,
        "project_id": project_id,
        "collection_id": collection_id,
        "research_context": description,
        "created_at": created_at.isoformat(),
        "updated_at": updated_at.isoformat(),
    }


def as_bytes(event: dict[str, Any]) -> bytes:
    return json.dumps(event).encode()


UPSERT = """
    INSERT INTO project_collections (project_id, collection_id, research_context, created_at, updated_at)
    VALUES ($1, $2, $3, $4, $5)
    ON CONFLICT (project_id, collection_id) DO UPDATE SET
        research_context = excluded.research_context,
        created_at = excluded.created_at,
        updated_at = excluded.updated_at
"""
DELETE = "DELETE FROM project_collections WHERE project_id = $1 AND collection_id = $2"


async def apply(pool: Any, event: dict[str, Any]) -> None:  # noqa: ANN401 - of asyncpg, in each environment
    """Bring the target to the event's state, in a transaction of its own; it is committed on return."""
    key = event["project_id"], event["collection_id"]
    if event["kind"] == "deleted":
        await pool.execute(DELETE, *key)
        return
    stamps = (datetime.fromisoformat(event[name]) for name in ("created_at", "updated_at"))
    await pool.execute(UPSERT, *key, event["research_context"], *stamps)
