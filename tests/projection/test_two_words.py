"""Copier and auditor each say the projection in their own words, and the canary tests the auditor's."""

import asyncpg

from shared import pair, projection
from worker.audit.canary import PLANT_LEGACY, PLANT_TARGET, PLANTED, SHADOW

DIFFERENT = f"""
    SELECT legacy.collection_id, {", ".join(f"({pair.differs(name)}) AS {name}" for name in pair.COLUMNS)}
    FROM (
        SELECT collection_id, project_id, {pair.EXPECTED} FROM pg_temp.collections WHERE is_active
    ) AS legacy
    JOIN pg_temp.project_collections AS target USING (collection_id, project_id)
"""  # noqa: S608 - constants

COLLATED = """
    SELECT attname FROM pg_attribute
    WHERE attrelid = 'project_collections'::regclass AND attcollation <> 0 AND attname = ANY($1)
"""

CATEGORIES = """
    SELECT attname, typcategory FROM pg_attribute JOIN pg_type ON pg_type.oid = atttypid
    WHERE attrelid = 'collections'::regclass AND attname = ANY($1)
"""
KINDS = {"S": "string", "D": "string", "N": "number", "B": "boolean", "A": "array"}  # by pg_type.typcategory


def test_copier_and_auditor_name_the_same_columns_each_in_its_own_words() -> None:
    copied = {column.name: column.legacy for column in projection.COLUMNS if column.is_audited}
    assert copied == pair.COMPARED


async def test_the_canary_holds_a_pair_that_differs_in_each_compared_column_and_in_no_other(
    sql: asyncpg.Connection,
) -> None:
    async with sql.transaction():
        await sql.execute(SHADOW)
        for plant in (PLANT_LEGACY, PLANT_TARGET):
            await sql.execute(plant, "canary")
        rows = await sql.fetch(DIFFERENT)
    differing = {row["collection_id"]: {name for name in pair.COLUMNS if row[name]} for row in rows}
    alone = {names.pop() for name, names in differing.items() if PLANTED.get(name) and len(names) == 1}
    assert set(pair.COLUMNS) - alone == set()


async def test_no_collation_decides_whether_a_compared_text_is_equal(sql: asyncpg.Connection) -> None:
    texts = {row["attname"] for row in await sql.fetch(COLLATED, list(pair.COLUMNS))}
    assert texts == pair.TEXTS
    assert all('COLLATE "C"' in pair.differs(name) for name in texts)


async def test_what_json_holds_of_a_column_is_what_postgresql_makes_of_its_type(
    sql: asyncpg.Connection,
) -> None:
    names = [column.legacy for column in projection.COLUMNS]
    categories = {row["attname"]: row["typcategory"].decode() for row in await sql.fetch(CATEGORIES, names)}
    made = {column.name: KINDS.get(categories[column.legacy]) for column in projection.COLUMNS}
    assert {column.name: column.json for column in projection.COLUMNS} == made
