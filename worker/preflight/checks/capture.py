"""The capture in the database, where an operator has installed it: what keeps it from seeing."""

import asyncpg

from shared.capture import FUNCTION, TRIGGERS
from shared.place import PLACE, Place
from worker.capture.definition import digest
from worker.capture.unseen import REPLICA_SETTINGS
from worker.preflight.check import Found, Objection, stop, warn
from worker.preflight.needs import LEGACY

INSTALL = "python -m worker.capture install --mode {}"
# One row, or none where it is not installed. Beside it catalogs only.
INSTALLED = """
    SELECT mode, definition,
        ARRAY(
            SELECT name FROM unnest($1::text[]) AS name
            WHERE NOT EXISTS (
                SELECT FROM pg_trigger
                WHERE tgrelid = to_regclass('collections') AND tgname = name AND tgenabled IN ('O', 'A')
            )
        ) AS missing
    FROM capture_settings WHERE singleton
"""
# With the rights of its owner the function appends and counts; a writer whose function may not is refused.
OWNER = """
    SELECT proowner::regrole::text AS owner,
        has_table_privilege(proowner, 'outbox_events', 'SELECT')
        AND has_table_privilege(proowner, 'outbox_events', 'INSERT')
        AND has_table_privilege(proowner, 'capture_settings', 'SELECT')
        AND has_table_privilege(proowner, 'captured_writes', 'INSERT')
        AND has_table_privilege(proowner, 'collections', 'SELECT') AS may
    FROM pg_proc
    WHERE proname = $1 AND pronamespace = (
        SELECT relnamespace FROM pg_class WHERE oid = to_regclass('outbox_events')
    )
"""


async def capture(connection: asyncpg.Connection) -> Found:
    """Look whether it sees what it is to see; not to be installed is no fault."""
    installed = await connection.fetchrow(INSTALLED, list(TRIGGERS))
    if installed is None:
        return Found("Not installed: writers that append no event are found by audits.")
    place = Place(*await connection.fetchrow(PLACE))
    objections = _of_triggers(installed, digest(place))
    owner = await connection.fetchrow(OWNER, FUNCTION)
    if owner is not None and not owner["may"]:
        objections.append(
            stop(
                f"The capture's function belongs to {owner['owner']}, who may not append: it fails writes.",
                "python -m worker.capture remove",
            )
        )
    objections += [
        warn(
            f"{row[0]} has session_replication_role = replica: what it writes is not captured.",
            f"ALTER ROLE {row[0]} RESET session_replication_role;",
        )
        for row in await connection.fetch(REPLICA_SETTINGS)
    ]
    return Found(
        f"Installed, mode {installed['mode']}: it sees every write but those of sessions with"
        " session_replication_role = replica, and TRUNCATE as one.",
        objections,
    )


def _of_triggers(installed: asyncpg.Record, current: str) -> list[Objection]:
    fix = INSTALL.format(installed["mode"])
    if installed["missing"]:
        names = ", ".join(installed["missing"])
        return [warn(f"Triggers of the capture on {LEGACY} are gone or disabled: {names}.", fix)]
    if installed["definition"] != current:
        return [warn("The capture is another release's: it may not know what is projected now.", fix)]
    return []
