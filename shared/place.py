"""Where tables lie: what runs with its owner's rights, and without a search path, names their schemas."""

from typing import NamedTuple


class Place(NamedTuple):
    """The schemas of `collections`, of our tables and of the target, quoted."""

    legacy: str
    ours: str
    target: str


PLACE = """
    SELECT
        (SELECT quote_ident(nspname) FROM pg_class JOIN pg_namespace ON pg_namespace.oid = relnamespace
        WHERE pg_class.oid = to_regclass('collections')) AS legacy,
        (SELECT quote_ident(nspname) FROM pg_class JOIN pg_namespace ON pg_namespace.oid = relnamespace
        WHERE pg_class.oid = to_regclass('outbox_events')) AS ours,
        (SELECT quote_ident(nspname) FROM pg_class JOIN pg_namespace ON pg_namespace.oid = relnamespace
        WHERE pg_class.oid = to_regclass('project_collections')) AS target
"""
