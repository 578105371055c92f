"""Why repaired pairs still differ: their event died, the target changes itself, or legacy changed since."""

from dataclasses import dataclass

import asyncpg
from sqlalchemy.ext.asyncio import AsyncEngine

from shared.pair import COLUMNS, EXPECTED, differs, shown
from shared.postgres.database import driver_connection
from shared.verdict.commands import LETTERS

# By name, the columns that the target changed.
CHANGED = ", ".join(
    f"CASE WHEN bool_or(is_changed AND {differs(name, 'legacy', 'home')}) THEN '{name}' END"
    for name in COLUMNS
)

# Served by audit_findings_pkey, the primary keys of applied_versions, collections and outbox_dead_letters,
# and the target's unique key. Where legacy is as it was found, the event that was applied held just that.
REMAINDER = f"""
    SELECT
        count(*) FILTER (WHERE letter.id IS NOT NULL) AS died,
        min(letter.id) AS first_letter,
        count(*) FILTER (WHERE is_changed) AS changed,
        array_remove(ARRAY[
            {CHANGED}
        ], NULL) AS columns
    FROM audit_findings AS finding
    LEFT JOIN outbox_dead_letters AS letter ON letter.id = finding.repair_event_id
    LEFT JOIN applied_versions AS guard ON guard.collection_id = finding.collection_id
    LEFT JOIN LATERAL (
        SELECT project_id, is_active, {EXPECTED}
        FROM collections WHERE collection_id = finding.collection_id
    ) AS legacy ON true
    LEFT JOIN project_collections AS home
        ON home.collection_id = finding.collection_id AND home.project_id = finding.project_id
    CROSS JOIN LATERAL (
        SELECT (
            guard.version >= finding.repair_event_id
            AND legacy.is_active AND home.collection_id IS NOT NULL
            AND finding.legacy = {shown("legacy")}
        ) IS TRUE AS is_changed
    ) AS judged
    WHERE finding.audit_run_id = $1
        AND finding.outcome = 'still_differs' AND finding.repair_event_id IS NOT NULL
"""  # noqa: S608 - constants

# What may change a row while it is written. Beside rules and generated columns no event is applied at all:
# PostgreSQL refuses our statement, which says ON CONFLICT and sets those columns.
MOST_NAMED = 5
ON_INSERT, ON_UPDATE = 4, 16  # in pg_trigger.tgtype
TRIGGERS = f"""
    SELECT quote_ident(tgname) FROM pg_trigger
    WHERE tgrelid = to_regclass('project_collections')
        AND NOT tgisinternal AND tgenabled <> 'D' AND tgtype & {ON_INSERT | ON_UPDATE} <> 0
    ORDER BY tgname
    LIMIT {MOST_NAMED}
"""  # noqa: S608 - constants


@dataclass(frozen=True, slots=True)
class Remainder:
    """Of the repaired pairs that differ still: how many events died, how many rows the target changed.

    first_letter: of an event that died. columns: of the target, those that it changed. triggers: on it, as
    SQL quotes their names.
    """

    died: int = 0
    first_letter: int | None = None
    changed: int = 0
    columns: tuple[str, ...] = ()
    triggers: tuple[str, ...] = ()

    def reasons(self, still_differ: int) -> list[str]:
        """Return why repaired pairs differ still, `still_differ` of them, and what to do."""
        since = still_differ - self.died - self.changed
        reasons = []
        if self.died:
            show = f"{LETTERS} show {self.first_letter}"
            reasons.append(f"{self.died} still differ because their event died; for the reason: `{show}`.")
        if self.changed:
            columns, triggers = ", ".join(self.columns), ", ".join(self.triggers)
            who = f"its trigger {triggers}" if triggers else "another program, since it has no trigger"
            reasons.append(
                f"{self.changed} still differ although their event was applied, and no repair can change"
                f" that: in project_collections something else sets {columns}: {who}."
            )
        if since > 0:
            reasons.append(f"{since} were changed once more, by a writer that appends no event: audit again.")
        return reasons


async def remainder_of(engine: AsyncEngine, run_id: int) -> Remainder:
    """Find out why repaired pairs of the run differ still."""
    async with driver_connection(engine) as connection:
        row: asyncpg.Record = await connection.fetchrow(REMAINDER, run_id)
        triggers = [name for (name,) in await connection.fetch(TRIGGERS)] if row["changed"] else []
    return Remainder(row["died"], row["first_letter"], row["changed"], tuple(row["columns"]), tuple(triggers))
