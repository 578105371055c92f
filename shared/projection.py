"""The projection: which columns of `collections` stand in `project_collections`, under which names.

All that copies takes them from here; the audit says the same in its own words, in `shared/pair.py`.
docs/how-to/add-a-projected-column.md says what one more costs, and docs/versions.md that a change of what
one means raises PAYLOAD_VERSION.
"""

from typing import NamedTuple


class Column(NamedTuple):
    """A column that is copied, under its name in the target, which is its key in an event's payload."""

    name: str
    legacy: str
    json: str  # what jsonb_typeof says of its values, other than null
    sql: str = "text"  # what they are read as; assigned to the target's own type
    is_new: bool = False  # events of the release before lack it, which means NULL
    is_audited: bool = True  # False while only a backfill brings it: in its first release


COLUMNS = (
    Column("research_context", legacy="description", json="string"),
    Column("created_at", legacy="created_at", json="string", sql="timestamptz"),
    Column("updated_at", legacy="updated_at", json="string", sql="timestamptz"),
)

NAMES = ", ".join(column.name for column in COLUMNS)
LEGACY_NAMES = ", ".join(column.legacy for column in COLUMNS)

# Of a row of `collections`, read inside the transaction that wrote or locked it: an event holds exactly what
# the database holds.
PAYLOAD = "jsonb_build_object('project_id', project_id, {})".format(
    ", ".join(f"'{column.name}', {column.legacy}" for column in COLUMNS)
)

# Of an event. Each value is read by itself: jsonb_populate_record would also read fields that are named like
# other columns of the target, and fails where one of these is of a domain that is NOT NULL.
VALUES = ", ".join(f"(payload ->> '{column.name}')::{column.sql}" for column in COLUMNS)

# PostgreSQL turns a number into a text without a word, so the kinds of the values are looked at.
WELL_FORMED = " AND ".join(
    f"coalesce(jsonb_typeof(payload -> '{column.name}'), 'null') IN ('{column.json}', 'null')"
    if column.is_new
    else f"jsonb_typeof(payload -> '{column.name}') IN ('{column.json}', 'null')"
    for column in COLUMNS
)


def names_of(row: str) -> str:
    """Return the target's columns as those of a row: `excluded.research_context, excluded.created_at, …`."""
    return ", ".join(f"{row}.{column.name}" for column in COLUMNS)


def legacy_names_of(row: str) -> str:
    """Return the legacy columns, in the same order, as those of a row."""
    return ", ".join(f"{row}.{column.legacy}" for column in COLUMNS)
