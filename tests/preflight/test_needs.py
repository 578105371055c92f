"""What preflight takes for the processes' needs is what `deploy/roles.sql` grants, and what they open."""

import asyncpg

from api.gate.admission import POOL_SIZE
from api.shadow import sampler
from tests.security.as_role import ROLES_SQL
from worker import drainer, duties
from worker.preflight.checks.connections import OF_API, OF_WORKER
from worker.preflight.needs import ROLES, Need, needs

GRANTED = """
    SELECT grantee::regrole::text AS role, relname::text AS relation, granted.attname::text, privilege_type
    FROM pg_class
    LEFT JOIN pg_attribute ON attrelid = pg_class.oid AND attnum > 0
    CROSS JOIN LATERAL (
        SELECT NULL AS attname, * FROM aclexplode(relacl)
        UNION ALL
        SELECT pg_attribute.attname, * FROM aclexplode(attacl)
    ) AS granted (attname, grantor, grantee, privilege_type, is_grantable)
    WHERE grantee::regrole::text = ANY($1)
"""


async def test_the_table_of_needs_is_what_the_file_grants(sql: asyncpg.Connection) -> None:
    await sql.execute(ROLES_SQL)
    granted = {Need(*row) for row in await sql.fetch(GRANTED, ROLES)}
    assert set(needs()) == granted


def test_an_api_and_a_worker_open_as_many_connections_as_they_are_said_to() -> None:
    assert (OF_API, OF_WORKER) == (
        POOL_SIZE + sampler.CONNECTIONS + 1,
        drainer.CONNECTIONS + duties.CONNECTIONS,
    )
