"""Whether what the database publishes lets us update and delete rows."""

import asyncpg

from worker.preflight.check import Found, each, stop
from worker.preflight.needs import LEGACY, OURS, TARGET

# A published table needs a key by which its subscribers know an old row: 55000 without.
UNKNOWN_ROWS = """
    SELECT pg_class.oid::regclass::text AS relation,
        string_agg(DISTINCT quote_ident(pubname), ', ') AS publications
    FROM pg_publication_tables
    JOIN pg_publication USING (pubname)
    JOIN pg_class ON pg_class.oid = format('%I.%I', schemaname, tablename)::regclass
    JOIN unnest($1::text[]) AS ours (relation) ON pg_class.oid = to_regclass(ours.relation)
    WHERE (pubupdate OR pubdelete) AND CASE relreplident
        WHEN 'f' THEN false
        WHEN 'n' THEN true
        ELSE NOT EXISTS (
            SELECT FROM pg_index
            WHERE indrelid = pg_class.oid AND indisvalid
                AND CASE relreplident WHEN 'd' THEN indisprimary ELSE indisreplident END
        )
    END
    GROUP BY 1
    ORDER BY 1
"""


async def replica_identity(connection: asyncpg.Connection) -> Found:
    """Look for published tables whose rows nobody can update or delete."""
    return Found(
        "Every published row can be updated and deleted.",
        each(
            await connection.fetch(UNKNOWN_ROWS, [LEGACY, TARGET, *OURS]),
            lambda row: stop(
                f"{row['relation']} is published ({row['publications']}) without a replica identity:"
                " no row of it can be updated or deleted.",
                f"ALTER TABLE {row['relation']} REPLICA IDENTITY DEFAULT; -- or FULL, without a primary key",
            ),
        ),
    )
