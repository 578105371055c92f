"""Everyone who writes `collections` without a word, and what each of their writes comes to."""

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass

import asyncpg

BULK = 1_000
CREATED, UPDATED, DELETED = (f"collection.{what}" for what in ("created", "updated", "deleted"))
NEW = "(collection_id, project_id, collection_name, description, created_by, is_active)"
LINK = """
    UPDATE collections
    SET linked_question_ids = '["q1"]', linked_hypothesis_ids = '["h1"]', updated_at = now()
    WHERE collection_id = 'c1'
"""
UNLINK = """
    UPDATE collections
    SET linked_question_ids = '[]', linked_hypothesis_ids = '[]', updated_at = now()
    WHERE collection_id = 'c1'
"""
MERGE = """
    MERGE INTO collections USING (VALUES ('c1', 'merged'), ('c9', 'new')) AS given (id, description)
    ON collection_id = given.id
    WHEN MATCHED THEN UPDATE SET description = given.description
    WHEN NOT MATCHED THEN
        INSERT (collection_id, project_id, collection_name, description, created_by, is_active)
        VALUES (given.id, 'p1', 'name', given.description, 'owner', true)
"""
CASCADING = """
    ALTER TABLE collections DROP CONSTRAINT collections_project_id_fkey,
        ADD FOREIGN KEY (project_id) REFERENCES projects ON DELETE CASCADE
"""

Write = Callable[[asyncpg.Connection], Awaitable[object]]
Event = tuple[str, str]  # the collection, the type


@dataclass(frozen=True)
class Writer:
    """A way to write past the outbox. There are c1 and c2, both active, in p1, without any event.

    events: what it comes to, in the order of collections. operations: what is counted.
    """

    write: Write
    events: Sequence[Event]
    operations: Sequence[str]
    before: str = "SELECT 1"
    is_refused: bool = True
    counted: Sequence[str] | None = None  # where nothing is appended, which the next look of a row would find


def runs(*statements: str) -> Write:
    """Return a writer that runs these in one transaction, as psql does."""

    async def write(connection: asyncpg.Connection) -> None:
        async with connection.transaction():
            for statement in statements:
                await connection.execute(statement)

    return write


async def copies(connection: asyncpg.Connection) -> None:
    await connection.copy_records_to_table(
        "collections",
        records=[(f"copied{number}", "p1", "name", "text", "owner", True) for number in range(3)],
        columns=["collection_id", "project_id", "collection_name", "description", "created_by", "is_active"],
    )


def insert(collection_id: str, *, is_active: bool = True) -> str:
    values = f"'{collection_id}', 'p1', 'name', 'text', 'owner', {is_active}"
    return f"INSERT INTO collections {NEW} VALUES ({values})"  # noqa: S608 - constants of tests


def bulk_insert(rows: int) -> str:
    return f"""
        INSERT INTO collections {NEW}
        SELECT 'bulk' || lpad(number::text, 6, '0'), 'p1', 'name', 'text', 'owner', true
        FROM generate_series(1, {rows}) AS number
    """  # noqa: S608 - a number


WRITERS = {
    "psql": Writer(
        runs("UPDATE collections SET description = 'by hand' WHERE collection_id = 'c1'"),
        [("c1", UPDATED)],
        ["update"],
    ),
    "COPY": Writer(copies, [(f"copied{number}", CREATED) for number in range(3)], ["insert"] * 3),
    "MERGE": Writer(runs(MERGE), [("c1", UPDATED), ("c9", CREATED)], ["insert", "update"]),
    "INSERT … SELECT": Writer(
        runs(bulk_insert(BULK)),
        [(f"bulk{number:06}", CREATED) for number in range(1, BULK + 1)],
        ["insert"] * BULK,
    ),
    "soft deletion": Writer(
        runs("UPDATE collections SET is_active = NULL WHERE collection_id = 'c1'"),
        [("c1", DELETED)],
        ["update"],
    ),
    "DELETE": Writer(
        runs("DELETE FROM collections WHERE collection_id = 'c1'"), [("c1", DELETED)], ["delete"]
    ),
    "cascade": Writer(
        runs("DELETE FROM projects WHERE project_id = 'p1'"),
        [("c1", DELETED), ("c2", DELETED)],
        ["delete"] * 2,
        before=CASCADING,
    ),
    "key change": Writer(
        runs("UPDATE collections SET collection_id = 'c3' WHERE collection_id = 'c1'"),
        [("c1", DELETED), ("c3", CREATED)],
        ["update"] * 2,
    ),
    "move": Writer(
        runs("UPDATE collections SET project_id = 'p2' WHERE collection_id = 'c1'"),
        [("c1", UPDATED)],
        ["update"],
    ),
    "move of what is deleted": Writer(
        runs("UPDATE collections SET project_id = 'p2' WHERE collection_id = 'c1'"),
        [("c1", DELETED)],
        ["update"],
        before="UPDATE collections SET is_active = false WHERE collection_id = 'c1'",
    ),
    "change, deletion and return": Writer(
        runs(
            "UPDATE collections SET description = 'x', is_active = false WHERE collection_id = 'c1'",
            "DELETE FROM collections WHERE collection_id = 'c1'",
            insert("c1"),
        ),
        [("c1", UPDATED)],
        ["update"],
        counted=["insert", "update"],
    ),
    "deletion of what was just deactivated": Writer(
        runs(
            "UPDATE collections SET is_active = false WHERE collection_id = 'c1'",
            "DELETE FROM collections WHERE collection_id = 'c1'",
        ),
        [("c1", DELETED)],
        ["update"],
    ),
    "link endpoint": Writer(runs(LINK), [("c1", UPDATED)], ["update"]),
    "unlink endpoint": Writer(runs(UNLINK), [("c1", UPDATED)], ["update"]),
    "TRUNCATE": Writer(runs("TRUNCATE collections CASCADE"), [], ["truncate"]),
    "replica role": Writer(
        runs(
            "SET LOCAL session_replication_role = replica",
            "UPDATE collections SET description = 'unseen' WHERE collection_id = 'c1'",
        ),
        [],
        [],
        is_refused=False,
    ),
    "nothing projected": Writer(
        runs("UPDATE collections SET collection_name = 'other', note_count = 7, color = 'red'"),
        [],
        [],
        is_refused=False,
    ),
    "the same again": Writer(
        runs("UPDATE collections SET description = description, updated_at = updated_at"),
        [],
        [],
        is_refused=False,
    ),
    "created inactive": Writer(
        runs(insert("c8", is_active=False)),
        [],
        [],
        is_refused=False,
    ),
}
