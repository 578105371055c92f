"""What can have become of a collection, and what lists show of it before and after the turn."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

import asyncpg
from sqlalchemy.ext.asyncio import AsyncEngine

from shared.events import Source
from tests.backfill.driving import backfilled
from tests.backfill.rows import COPY_TO_TARGET
from tests.draining import drain
from tests.legacy_rows import set_collection
from tests.phase.moving import Lists
from worker.dead_letters.upkeep import close_overtaken

REFUSE = """
    CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RAISE 'refused'; END $$;
    CREATE TRIGGER refuse BEFORE INSERT OR UPDATE OR DELETE ON project_collections
        FOR EACH ROW EXECUTE FUNCTION refuse()
"""
INSERT = """
    INSERT INTO collections (collection_id, project_id, collection_name, description, created_by, is_active)
    VALUES ($1, $2, 'name', $3, 'owner', true)
"""
LINK = "INSERT INTO project_collections (collection_id, project_id, research_context) VALUES ($1, $2, $3)"
DISCARD = "UPDATE outbox_dead_letters SET state = 'discarded', closed_at = now()"


@dataclass
class Stage:
    """Everybody who has a part in a scene: users, workers, and who writes by hand."""

    engine: AsyncEngine
    sql: asyncpg.Connection

    async def write(
        self,
        text: str | None,
        project: str = "p1",
        *,
        is_active: bool = True,
        source: Source = Source.API,
        name: str = "c",
    ) -> None:
        await set_collection(self.engine, name, text, project_id=project, is_active=is_active, source=source)

    async def delete(self) -> None:
        row = await self.sql.fetchrow("SELECT project_id, description FROM collections")
        await self.write(row["description"], row["project_id"], is_active=False)

    async def apply(self) -> None:
        await drain(self.engine)

    async def settled(self, text: str | None, project: str = "p1") -> None:
        await self.write(text, project)
        await self.apply()

    async def die(self) -> None:
        """Let everything that waits become a dead letter."""
        await self.sql.execute(REFUSE)
        await self.apply()
        await self.sql.execute("DROP FUNCTION refuse CASCADE")
        assert not await self.sql.fetchval("SELECT count(*) FROM outbox_events")

    async def link(self, project: str, text: str | None, name: str = "c") -> None:
        await self.sql.execute(LINK, name, project, text)

    async def put_by_others(self, text: str) -> None:
        """Let another program write both rows, without an event, and a backfill pass by."""
        await self.sql.execute(INSERT, "c", "p1", text)
        await self.sql.execute(COPY_TO_TARGET, "c", "p1")
        await backfilled(self.engine)

    async def still_waits(self) -> None:
        assert await self.sql.fetchval("SELECT count(*) FROM outbox_events")

    async def run(self, *statements: str) -> None:
        for statement in statements:
            await self.sql.execute(statement)


Act = Callable[[Stage], Awaitable[object]]


@dataclass(frozen=True)
class Scene:
    """What happened, in this order; what `collections` says in the end, and what is shown after the turn."""

    acts: tuple[Act, ...]
    legacy: Lists = field(default_factory=dict)
    moved: Lists = field(default_factory=dict)


def scene(legacy: Lists, *acts: Act, moved: Lists | None = None) -> Scene:
    """Make a scene; where nothing else is said, the turn changes nothing that is shown."""
    return Scene(acts, legacy, legacy if moved is None else moved)


def at(project: str, text: str | None) -> Lists:
    return {project: [("c", text)]}


AT_HOME = at("p1", "text")
WITH_LINK = AT_HOME | at("p2", "linked")
SCENES = {
    "settled": scene(AT_HOME, lambda s: s.settled("text")),
    "no context": scene(at("p1", None), lambda s: s.settled(None)),
    "an empty context": scene(at("p1", ""), lambda s: s.settled("")),
    "an empty context that was none": scene(at("p1", ""), lambda s: s.settled(None), lambda s: s.write("")),
    "no context any more": scene(at("p1", None), lambda s: s.settled(""), lambda s: s.write(None)),
    "created, not applied": scene(AT_HOME, lambda s: s.write("text")),
    "changed, not applied": scene(AT_HOME, lambda s: s.settled("before"), lambda s: s.write("text")),
    "deleted, not applied": scene({}, lambda s: s.settled("text"), lambda s: s.delete()),
    "moved, not applied": scene(
        at("p2", "text"), lambda s: s.settled("text"), lambda s: s.write("text", "p2")
    ),
    "moved twice, not applied": scene(
        at("p3", "text"),
        lambda s: s.settled("text"),
        lambda s: s.write("text", "p2"),
        lambda s: s.write("text", "p3"),
    ),
    "moved and back, not applied": scene(
        at("p1", "new"),
        lambda s: s.settled("text"),
        lambda s: s.write("text", "p2"),
        lambda s: s.write("new", "p1"),
    ),
    "moved": scene(
        at("p2", "text"),
        lambda s: s.settled("text"),
        lambda s: s.settled("text", "p2"),
    ),
    "deleted": scene({}, lambda s: s.settled("text"), lambda s: s.delete(), lambda s: s.apply()),
    "deleted and created again, not applied": scene(
        AT_HOME, lambda s: s.settled("before"), lambda s: s.delete(), lambda s: s.write("text")
    ),
    "deleted, applied, created again elsewhere, not applied": scene(
        at("p2", "text"),
        lambda s: s.settled("before"),
        lambda s: s.delete(),
        lambda s: s.apply(),
        lambda s: s.write("text", "p2"),
    ),
    "its row is gone": scene({}, lambda s: s.settled("text"), lambda s: s.run("DELETE FROM collections")),
    "its row is gone while an event waits": scene(
        {}, lambda s: s.settled("text"), lambda s: s.write("new"), lambda s: s.run("DELETE FROM collections")
    ),
    "a creation that died": scene(AT_HOME, lambda s: s.write("text"), lambda s: s.die()),
    "a change that died": scene(
        AT_HOME, lambda s: s.settled("before"), lambda s: s.write("text"), lambda s: s.die()
    ),
    "a deletion that died": scene({}, lambda s: s.settled("text"), lambda s: s.delete(), lambda s: s.die()),
    "a move that died": scene(
        at("p2", "text"), lambda s: s.settled("text"), lambda s: s.write("text", "p2"), lambda s: s.die()
    ),
    "a letter that was overtaken": scene(
        AT_HOME,
        lambda s: s.write("before"),
        lambda s: s.die(),
        lambda s: s.settled("text"),
        lambda s: close_overtaken(s.engine),
    ),
    "a change whose letter was discarded": scene(
        AT_HOME,
        lambda s: s.settled("before"),
        lambda s: s.write("text"),
        lambda s: s.die(),
        lambda s: s.run(DISCARD),
        moved=at("p1", "before"),
    ),
    "another collection's letter": scene(
        {"p1": [("c", "text")], "p2": [("other", "other")]},
        lambda s: s.write("other", "p2", name="other"),
        lambda s: s.die(),
        lambda s: s.settled("text"),
    ),
    "drifted": scene(
        AT_HOME,
        lambda s: s.settled("text"),
        lambda s: s.run("UPDATE project_collections SET research_context = 'drifted'"),
        moved=at("p1", "drifted"),
    ),
    "drifted, its repair not applied": scene(
        AT_HOME,
        lambda s: s.settled("text"),
        lambda s: s.run("UPDATE project_collections SET research_context = 'drifted'"),
        lambda s: s.write("text", source=Source.REPAIR),
    ),
    "without a row in the target": scene(
        AT_HOME,
        lambda s: s.settled("text"),
        lambda s: s.run("DELETE FROM project_collections"),
        moved={},
    ),
    "its backfill not applied": scene(
        AT_HOME,
        lambda s: s.sql.execute(INSERT, "c", "p1", "before"),
        lambda s: s.write("text", source=Source.BACKFILL),
    ),
    "an event of a later version waits": scene(
        AT_HOME,
        lambda s: s.settled("before"),
        lambda s: s.write("text"),
        lambda s: s.run("UPDATE outbox_events SET schema_version = 32000"),
        lambda s: s.apply(),
        lambda s: s.still_waits(),
    ),
    "linked": scene(AT_HOME, lambda s: s.settled("text"), lambda s: s.link("p2", "linked"), moved=WITH_LINK),
    "linked, without a context": scene(
        AT_HOME,
        lambda s: s.settled("text"),
        lambda s: s.link("p2", None),
        moved=AT_HOME | at("p2", None),
    ),
    "linked, a change not applied": scene(
        AT_HOME,
        lambda s: s.settled("before"),
        lambda s: s.link("p2", "linked"),
        lambda s: s.write("text"),
        moved=WITH_LINK,
    ),
    "linked, a change that died": scene(
        AT_HOME,
        lambda s: s.settled("before"),
        lambda s: s.link("p2", "linked"),
        lambda s: s.write("text"),
        lambda s: s.die(),
        moved=WITH_LINK,
    ),
    "linked, its deletion not applied": scene(
        {},
        lambda s: s.settled("text"),
        lambda s: s.link("p2", "linked"),
        lambda s: s.delete(),
    ),
    "linked, deleted": scene(
        {},
        lambda s: s.settled("text"),
        lambda s: s.link("p2", "linked"),
        lambda s: s.delete(),
        lambda s: s.apply(),
    ),
    "linked, deactivated by hand": scene(
        {},
        lambda s: s.settled("text"),
        lambda s: s.link("p2", "linked"),
        lambda s: s.run("UPDATE collections SET is_active = NULL"),
    ),
    "linked, moved, not applied": scene(
        at("p3", "text"),
        lambda s: s.settled("text"),
        lambda s: s.link("p2", "linked"),
        lambda s: s.write("text", "p3"),
        moved=at("p3", "text") | at("p2", "linked"),
    ),
    "moved to where it was linked, not applied": scene(
        at("p2", "text"),
        lambda s: s.settled("text"),
        lambda s: s.link("p2", "linked"),
        lambda s: s.write("text", "p2"),
    ),
    "linked to its former home": scene(
        at("p2", "text"),
        lambda s: s.settled("text"),
        lambda s: s.settled("text", "p2"),
        lambda s: s.link("p1", "linked"),
        moved=at("p2", "text") | at("p1", "linked"),
    ),
    "linked to its former home, a change not applied": scene(
        at("p2", "new"),
        lambda s: s.settled("text"),
        lambda s: s.settled("text", "p2"),
        lambda s: s.link("p1", "linked"),
        lambda s: s.write("new", "p2"),
        moved=at("p2", "new") | at("p1", "linked"),
    ),
    "linked to where it was deleted, created again elsewhere, not applied": scene(
        at("p2", "text"),
        lambda s: s.settled("text"),
        lambda s: s.delete(),
        lambda s: s.apply(),
        lambda s: s.link("p1", "linked"),
        lambda s: s.write("text", "p2"),
        moved=at("p2", "text") | at("p1", "linked"),
    ),
    "in sync from before, without a guard": scene(
        AT_HOME,
        lambda s: s.sql.execute(INSERT, "c", "p1", "text"),
        lambda s: s.link("p1", "text"),
    ),
    "without a guard, moved, not applied: its row may be anybody's link": scene(
        at("p2", "text"),
        lambda s: s.sql.execute(INSERT, "c", "p1", "text"),
        lambda s: s.link("p1", "text"),
        lambda s: s.write("text", "p2"),
        moved=at("p1", "text") | at("p2", "text"),
    ),
    "without a guard, moved: its row stays, as a link": scene(
        at("p2", "text"),
        lambda s: s.sql.execute(INSERT, "c", "p1", "text"),
        lambda s: s.link("p1", "text"),
        lambda s: s.settled("text", "p2"),
        moved=at("p1", "text") | at("p2", "text"),
    ),
    "in sync before us, backfilled": scene(AT_HOME, lambda s: s.put_by_others("text")),
    "in sync before us, backfilled, moved, not applied": scene(
        at("p2", "text"), lambda s: s.put_by_others("text"), lambda s: s.write("text", "p2")
    ),
    "in sync before us, backfilled, moved": scene(
        at("p2", "text"), lambda s: s.put_by_others("text"), lambda s: s.settled("text", "p2")
    ),
    "in sync before us, backfilled, moved by hand, backfilled": scene(
        at("p2", "text"),
        lambda s: s.put_by_others("text"),
        lambda s: s.run("UPDATE collections SET project_id = 'p2'"),
        lambda s: backfilled(s.engine),
        lambda s: s.apply(),
    ),
    "in sync before us, backfilled, moved by hand, its repair not applied": scene(
        at("p2", "text"),
        lambda s: s.put_by_others("text"),
        lambda s: s.run("UPDATE collections SET project_id = 'p2'"),
        lambda s: s.write("text", "p2", source=Source.REPAIR),
    ),
    "in sync before us, backfilled, linked, moved": scene(
        at("p2", "text"),
        lambda s: s.put_by_others("text"),
        lambda s: s.link("p3", "linked"),
        lambda s: s.settled("text", "p2"),
        moved=at("p2", "text") | at("p3", "linked"),
    ),
    "written by hand, and nobody captured it": scene(
        at("p2", "by hand"),
        lambda s: s.settled("text"),
        lambda s: s.run("UPDATE collections SET project_id = 'p2', description = 'by hand'"),
        moved=at("p1", "text"),
    ),
}
