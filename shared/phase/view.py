"""The view `visible_collections`: which collections are in a project, and with which context.

One row says which side answers, and each statement asks that row on its own snapshot. So a turn needs no
deploy, and no process can hold an old phase.

After the turn a collection for which an event waits, or a dead letter is open, is *unsettled*: its home is
still answered from `collections`, whose row was committed with that event. So a worker that is stopped makes
nothing stale.

The view asks a function, once for each project. The function reads one side only, and locks no table of the
other: before the turn no reader waits for a session that has locked the target. It depends on no column, so
the monolith may alter its tables (the view itself holds the type of `projects.project_id`); and its plans are
made once, by indexes, whatever the session's settings.
"""

from shared.place import Place

VIEW = "visible_collections"
FUNCTION = "collections_of_project"
LAST_ID = 2**63 - 1

# What is shown of a collection beside its context, as `collections` has it: column and type.
SHOWN = {
    "collection_name": "text",
    "created_by": "text",
    "created_at": "timestamptz",
    "updated_at": "timestamptz",
    "color": "text",
    "icon": "text",
    "sort_order": "integer",
    "linked_hypothesis_ids": "json",
    "linked_question_ids": "json",
    "collection_purpose": "text",
    "auto_update": "boolean",
}
# Before PostgreSQL 16, a plan that was made while the tables were empty looks a home row up by its project
# alone, and reads all of the project for each collection. A limit prevents that, and costs a list of a
# thousand another millisecond.
FIRST_THAT_JOINS_BY_BOTH = 160000
JOINED = """{target}.project_collections AS target
            ON target.project_id = legacy.project_id AND target.collection_id = legacy.collection_id"""
LOOKED_UP = """LATERAL (
            SELECT * FROM {target}.project_collections AS home
            WHERE home.project_id = legacy.project_id AND home.collection_id = legacy.collection_id
            LIMIT 1
        ) AS target ON true"""
COLUMNS = ", ".join(f"{name} {kind}" for name, kind in SHOWN.items())
VALUES = ",\n            ".join(f"legacy.{name}::{kind}" for name, kind in SHOWN.items())

COMMENT = (
    "Which collections are in a project, and with which context: from collections, or, once migration_phase"
    " says reads_moved, from project_collections."
)


def unsettled(collection: str, ours: str) -> str:
    """Return whether an event of the collection waits, of whatever version, or a dead letter of it is open.

    Served by outbox_events_of_aggregate and outbox_dead_letters_of_aggregate. The bounds of both columns, and
    an order that OFFSET keeps, leave PostgreSQL no other index: by that of the claims it would read through
    all that others wait for. So it would by that of the open letters: the condition on closed_at hides
    that only those are asked for. A collection's letters are looked for only where any letter is open.
    """
    return f"""(
                EXISTS (
                    SELECT FROM {ours}.outbox_events AS event
                    WHERE (event.aggregate_id, event.id) >= ({collection}, 0)
                        AND (event.aggregate_id, event.id) <= ({collection}, {LAST_ID})
                    ORDER BY event.aggregate_id, event.id LIMIT 1 OFFSET 0
                )
                OR (
                    SELECT EXISTS (
                        SELECT FROM {ours}.outbox_dead_letters WHERE closed_at IS NULL ORDER BY id LIMIT 1
                    )
                ) AND EXISTS (
                    SELECT FROM {ours}.outbox_dead_letters AS letter
                    WHERE (letter.aggregate_id, letter.id) >= ({collection}, 0)
                        AND (letter.aggregate_id, letter.id) <= ({collection}, {LAST_ID})
                        AND coalesce(letter.closed_at, '-infinity') = '-infinity'
                    ORDER BY letter.aggregate_id, letter.id LIMIT 1 OFFSET 0
                )
            )"""  # noqa: S608 - constants, and a name that was quoted


def function(place: Place) -> str:
    """Return the statement that makes the function, which has the rights of its owner and of no search path.

    STABLE: all that it reads is of the snapshot of the statement that asks.
    """
    return f"""
CREATE OR REPLACE FUNCTION {place.ours}.{FUNCTION}(project text)
    RETURNS TABLE (collection_id text, research_context text, {COLUMNS})
    LANGUAGE plpgsql STABLE SECURITY DEFINER ROWS 100
    SET search_path = pg_catalog, pg_temp
    SET enable_seqscan = off SET plan_cache_mode = force_generic_plan SET jit = off SET work_mem = '64MB'
AS $reads${body(place)}$reads$"""


def body(place: Place) -> str:
    """Return what the function does, in PL/pgSQL.

    After the turn it answers first the collections at home in the project, then those that are linked to
    it. A home row that says what `collections` says, byte for byte, is the answer whether it is settled or
    not, so nothing is looked up for it. Of an unsettled collection the target's home row is stale, and so is
    the row in its former home, which a move that is not applied yet has left there; further links are not.
    A deletion that was applied has left no home: what is linked there later, others have linked. Without a
    guard no event of the collection was ever applied, and no backfill found it in sync, so nobody knows of a
    former home: its rows are links.

    Most projects have no links: the statement that answers them is begun only where there are any, since its
    beginning alone takes an eighth of a list of ten.

    Served by migration_phase_pkey, then by idx_collection_project_id and the target's unique key, of each
    side once; for links and what is not alike by collections_pkey and applied_versions_pkey, and as
    `unsettled` says. Homes are excluded by NOT IN, which hashes them as long as the memory is believed to be
    enough. OFFSET 0 and the limit change no result: nothing is looked up before it is known to be needed, and
    no whole table is hashed.
    """
    legacy, ours, target = place
    return f"""
#variable_conflict use_column
DECLARE
    linked text[];
    contexts text[];
BEGIN
    IF EXISTS (SELECT FROM {ours}.migration_phase WHERE singleton AND phase = 'reads_moved') THEN
        IF current_setting('server_version_num')::integer >= {FIRST_THAT_JOINS_BY_BOTH} THEN
            {homes(place, JOINED.format(target=target))};
        ELSE
            {homes(place, LOOKED_UP.format(target=target))};
        END IF;
        SELECT array_agg(target.collection_id::text), array_agg(target.research_context::text)
        INTO linked, contexts
        FROM {target}.project_collections AS target
        WHERE target.project_id = project
            AND target.collection_id NOT IN (
                SELECT home.collection_id FROM {legacy}.collections AS home WHERE home.project_id = project
            );
        IF linked IS NOT NULL THEN
            {links(place)};
        END IF;
    ELSE
        RETURN QUERY
        SELECT legacy.collection_id::text, legacy.description::text, {VALUES}
        FROM {legacy}.collections AS legacy
        WHERE legacy.project_id = project AND legacy.is_active;
    END IF;
END
"""  # noqa: S608 - constants, and names that were quoted


def homes(place: Place, home: str) -> str:
    """Return what answers the collections at home; `home` finds the home row in the target, if any."""
    legacy, ours, _ = place
    return f"""RETURN QUERY
        SELECT
            legacy.collection_id::text,
            CASE WHEN state.is_unsettled THEN legacy.description ELSE target.research_context END::text,
            {VALUES}
        FROM {legacy}.collections AS legacy
        LEFT JOIN {home}
        CROSS JOIN LATERAL (
            SELECT CASE
                WHEN target.collection_id IS NOT NULL
                    AND target.research_context COLLATE "C"
                        IS NOT DISTINCT FROM legacy.description COLLATE "C"
                THEN false
                ELSE {unsettled("legacy.collection_id", ours)}
            END AS is_unsettled
            OFFSET 0
        ) AS state
        WHERE legacy.project_id = project
            AND legacy.is_active
            AND (target.collection_id IS NOT NULL OR state.is_unsettled)"""  # noqa: S608 - as above


def links(place: Place) -> str:
    """Return what answers the collections that are `linked` to the project, with their `contexts`."""
    legacy, ours, _ = place
    return f"""RETURN QUERY
        SELECT link.collection_id, link.research_context, {VALUES}
        FROM unnest(linked, contexts) AS link (collection_id, research_context)
        CROSS JOIN LATERAL (
            SELECT * FROM {legacy}.collections AS home WHERE home.collection_id = link.collection_id LIMIT 1
        ) AS legacy
        WHERE legacy.is_active
            AND NOT (
                {unsettled("link.collection_id", ours)}
                AND EXISTS (
                    SELECT FROM {ours}.applied_versions AS guard
                    WHERE guard.collection_id = link.collection_id AND guard.project_id = project
                        AND NOT guard.is_deleted
                    OFFSET 0
                )
            )"""  # noqa: S608 - as above


def view(place: Place) -> str:
    """Return the statement that makes the view on the search path's projects, served by projects_pkey."""
    return f"""
CREATE OR REPLACE VIEW {place.ours}.{VIEW} AS
SELECT projects.project_id, listed.*
FROM projects CROSS JOIN LATERAL {place.ours}.{FUNCTION}(projects.project_id::text) AS listed
"""  # noqa: S608 - constants, and names that were quoted
