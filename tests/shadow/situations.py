"""What lists may be like when they are compared: planted faults, and what only looks like one."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass

import asyncpg
from sqlalchemy.ext.asyncio import AsyncEngine

from shared.phase.comparison import Mismatch, Outcome
from shared.phase.phases import Phase
from tests.draining import drain
from tests.legacy_rows import set_collection

TURN = "UPDATE migration_phase SET phase = $1, epoch = epoch + 1, actor = 'test' RETURNING epoch"
# What each fault is, and what plants it on a collection that is settled.
FAULTS = {
    "missing": "DELETE FROM project_collections WHERE collection_id = $1",
    "mismatched": "UPDATE project_collections SET research_context = 'other' WHERE collection_id = $1",
    "orphaned": "UPDATE collections SET is_active = false WHERE collection_id = $1",
}
KILL = """
    WITH died AS (DELETE FROM outbox_events WHERE aggregate_id = $1 RETURNING *)
    INSERT INTO outbox_dead_letters (id, aggregate_id, event_type, source, payload, created_at, error)
    SELECT id, aggregate_id, event_type, source, payload, created_at, 'test' FROM died
"""
LINK = "INSERT INTO project_collections (project_id, collection_id) VALUES ($1, $2)"


async def turn(sql: asyncpg.Connection, phase: Phase) -> int:
    """Turn the phase as nobody may, without its gates, and return the epoch."""
    epoch: int = await sql.fetchval(TURN, phase.value)
    return epoch


@dataclass(frozen=True)
class Scene:
    """Where a situation is made: `a`, `b` and `c` are at home in p1, and settled."""

    sql: asyncpg.Connection
    engine: AsyncEngine

    async def write(self, collection_id: str, *, project_id: str = "p1", is_active: bool = True) -> None:
        await set_collection(self.engine, collection_id, "new", project_id=project_id, is_active=is_active)

    async def die(self, collection_id: str) -> None:
        """Write, and let the event die."""
        await self.write(collection_id)
        await self.sql.execute(KILL, collection_id)

    async def drain(self) -> None:
        await drain(self.engine)


Make = Callable[[Scene], Awaitable[object]]


@dataclass(frozen=True)
class Situation:
    """How it is made, and what comparing p1 says of it."""

    make: Make
    outcome: Outcome
    mismatches: tuple[Mismatch, ...] = ()
    collections: int = 3


async def nothing(_: Scene) -> None:
    pass


def one_after_the_other(*makes: Make) -> Make:
    async def make(scene: Scene) -> None:
        for one in makes:
            await one(scene)

    return make


def plant(kind: str, collection_id: str = "b") -> Make:
    return lambda scene: scene.sql.execute(FAULTS[kind], collection_id)


async def apply_a_deletion_that_a_dead_event_overtook(scene: Scene) -> None:
    await scene.die("a")
    await scene.write("a", is_active=False)


SITUATIONS = {
    "equal": Situation(nothing, Outcome.MATCHED),
    "a change waits": Situation(lambda scene: scene.write("a"), Outcome.PENDING),
    "a deletion waits": Situation(lambda scene: scene.write("a", is_active=False), Outcome.PENDING),
    "a creation waits": Situation(lambda scene: scene.write("d"), Outcome.PENDING, collections=4),
    "a move to here waits": Situation(
        one_after_the_other(
            lambda scene: scene.write("d", project_id="p2"),
            Scene.drain,
            lambda scene: scene.write("d"),
        ),
        Outcome.PENDING,
        collections=4,
    ),
    "a move from here waits": Situation(
        lambda scene: scene.write("a", project_id="p2"), Outcome.MATCHED, collections=2
    ),
    "an event that changes nothing waits": Situation(
        one_after_the_other(lambda scene: scene.write("a"), Scene.drain), Outcome.MATCHED
    ),
    "an event died": Situation(lambda scene: scene.die("a"), Outcome.LETTERED),
    "an event died and another waits": Situation(
        apply_a_deletion_that_a_dead_event_overtook, Outcome.LETTERED
    ),
    "a closed letter explains nothing": Situation(
        one_after_the_other(
            lambda scene: scene.die("a"),
            lambda scene: scene.sql.execute(
                "UPDATE outbox_dead_letters SET state = 'discarded', closed_at = now()"
            ),
        ),
        Outcome.MISMATCHED,
        (Mismatch("a", "mismatched"),),
    ),
    "linked from elsewhere": Situation(
        one_after_the_other(
            lambda scene: scene.write("d", project_id="p2"),
            Scene.drain,
            lambda scene: scene.sql.execute(LINK, "p1", "d"),
        ),
        Outcome.MATCHED,
    ),
    "missing": Situation(plant("missing"), Outcome.MISMATCHED, (Mismatch("b", "missing"),)),
    "mismatched": Situation(plant("mismatched"), Outcome.MISMATCHED, (Mismatch("b", "mismatched"),)),
    "orphaned": Situation(plant("orphaned"), Outcome.MISMATCHED, (Mismatch("b", "orphaned"),)),
    "a time that differs": Situation(
        lambda scene: scene.sql.execute(
            "UPDATE project_collections SET updated_at = updated_at + interval '1 us'"
            " WHERE collection_id = 'c'"
        ),
        Outcome.MISMATCHED,
        (Mismatch("c", "mismatched"),),
    ),
    "one fault among what waits and died": Situation(
        one_after_the_other(lambda scene: scene.write("a"), lambda scene: scene.die("c"), plant("missing")),
        Outcome.MISMATCHED,
        (Mismatch("b", "missing"),),
    ),
    "three faults": Situation(
        one_after_the_other(plant("missing", "a"), plant("mismatched", "b"), plant("orphaned", "c")),
        Outcome.MISMATCHED,
        (Mismatch("a", "missing"), Mismatch("b", "mismatched"), Mismatch("c", "orphaned")),
    ),
}
