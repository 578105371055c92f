"""The upgrade from 0.1.1 as docs/how-to/upgrade.md says it, with logins: there, and back."""

import contextlib
from collections import Counter
from collections.abc import AsyncIterator
from pathlib import Path

import asyncpg
import httpx
import pytest
from sqlalchemy.engine import make_url

from shared.revision import REVISION
from tests.databases import Databases
from tests.drift import drained, drift
from tests.forked import ROOT
from tests.legacy_rows import seed
from tests.processes import environment
from tests.security.as_role import ROLES_SQL, connected, make_logins
from tests.versions.kept_releases import Release, revision_of
from tests.versions.rotation import HOT
from tests.versions.test_mixed_releases import COLLECTIONS, Site, revision

pytestmark = [pytest.mark.slow, pytest.mark.wide]

FROM = Release("0.1.1")
ADMIN_TOKEN = "administrators only"
FROM_BEFORE = [f"from-before-{number}" for number in range(50)]
AS_KEDA = "SELECT id, created_at FROM outbox_events WHERE lane = 0 ORDER BY lane, id LIMIT 1"
PAST_THE_OUTBOX = "UPDATE collections SET description = 'past the outbox' WHERE collection_id = $1"


@pytest.fixture
async def site(databases: Databases, redis_url: str, tmp_path: Path) -> AsyncIterator[Site]:
    """A database as 0.1.1 has migrated it, under its roles and with rows from before phase 1."""
    url = databases.create_empty(f"upgraded_{tmp_path.name}")
    site = Site(environment(url, redis_url, ADMIN_TOKEN=ADMIN_TOKEN), FROM, FROM.unpack(tmp_path))
    await site.run("-m", "alembic", "upgrade", "head", root=site.before)
    async with connected(url) as sql:
        await seed(sql)
        await sql.execute(COLLECTIONS, [*HOT, *FROM_BEFORE])
        site.urls |= await make_logins(sql, url, roles_of(site.before))
        yield site
        for login in site.urls.values():
            await sql.execute(
                f"DROP OWNED BY {make_url(login).username}; DROP ROLE {make_url(login).username}"
            )


def roles_of(root: Path) -> str:
    return (root / "deploy" / "roles.sql").read_text(encoding="utf-8")


async def keda_is_answered(site: Site) -> bool:
    async with connected(site.urls["scaler"]) as keda:
        try:
            await keda.fetch(AS_KEDA)
        except asyncpg.InsufficientPrivilegeError:
            return False
    return True


async def test_a_running_system_is_upgraded_and_taken_back_as_the_guide_says(site: Site) -> None:
    rotation, stack = site.rotation, contextlib.AsyncExitStack
    async with connected(site.env["DATABASE_URL"]) as sql, stack() as old, stack() as new, stack() as writing:
        await old.enter_async_context(site.release("before", site.before))
        await writing.enter_async_context(rotation.writing())
        await site.run("-m", "worker.backfill", "--wait", root=site.before, role="operator")
        await rotation.answered("before", 20)

        # 1 and 2: the schema and the roles; the processes of 0.1.1 go on.
        await site.run("-m", "alembic", "upgrade", "head")
        assert await revision(sql) == REVISION
        await rotation.answered("before", 20)
        assert not await keda_is_answered(site), "the right to read a column is gone with the column"
        await sql.execute(ROLES_SQL)
        assert await keda_is_answered(site)
        await rotation.answered("before", 20)

        # 3: workers and APIs, here at once. 4: what it is for.
        await new.enter_async_context(site.release("this", ROOT))
        await rotation.answered("this", 20)
        await old.aclose()
        await site.run("-m", "worker.preflight")
        await site.run("-m", "worker.audit", role="operator")
        await site.run("-m", "worker.capture", "install", "--mode", "append")
        await sql.execute(PAST_THE_OUTBOX, FROM_BEFORE[0])
        asked = await rotation.clients["this"].post("/admin/audit", headers={"X-Admin-Token": ADMIN_TOKEN})
        assert asked.status_code == httpx.codes.ACCEPTED, asked.text
        for _ in range(4):
            await site.run(
                "-m", "worker.phase", "advance", "--force", "--reason", "a test", "--yes", role="operator"
            )
        await rotation.answered("this", 20)

        # Back: the reads, then the release; the schema stays.
        await refused(site, "reads are moved")
        await site.run("-m", "worker.phase", "back", "--yes", role="operator")
        await old.enter_async_context(site.release("before", site.before))
        await rotation.answered("before", 20)
        await new.aclose()
        await rotation.answered("before", 20)

        # And the schema, while the release before is at work.
        await refused(site, "worker.capture remove")
        await site.run("-m", "worker.capture", "remove")
        await refused(site, "1 acts of operators are on record")
        await sql.execute("DELETE FROM operator_acts")
        await site.run("-m", "alembic", "downgrade", revision_of(site.before))
        assert await revision(sql) == revision_of(site.before)
        await sql.execute(roles_of(site.before))
        assert await keda_is_answered(site)
        await rotation.answered("before", 20)
        await writing.aclose()
        await drained(sql)
        await site.run("-m", "worker.audit", root=site.before, role="operator")
        assert await drift(sql) == []

    assert rotation.wrong == []
    assert len(site.appended()) == rotation.answers.total()
    assert Counter(site.appended()) <= site.settled()


async def refused(site: Site, why: str) -> None:
    """Downgrade, which must be refused for that."""
    downgrade = await site.run("-m", "alembic", "downgrade", revision_of(site.before), status=1)
    assert why in downgrade.output
    assert downgrade.output.rstrip().endswith("Nothing was changed.")
