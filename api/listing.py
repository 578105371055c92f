"""The list of a project's collections, as the bytes of its answer.

What fits into one round trip is fetched at once. A longer list is fetched by a cursor, so on one snapshot,
and made in pieces, between which the process does everything else. All of it is there before its first byte
is sent: what fails still has its status, an answer that is cut off is shorter than its Content-Length, and a
client that reads slowly holds no connection to PostgreSQL.
"""

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from http import HTTPStatus
from typing import Annotated
from urllib.parse import quote

import asyncpg
from fastapi import Query, Response
from fastapi.responses import StreamingResponse
from pydantic import TypeAdapter

from api.access import refuse_nul, require_access, resolve_email
from api.collection_models import ListedCollection
from api.context import CollectionSync
from api.gate.errors import CollectionNotFoundError
from shared.phase.view import VIEW
from shared.postgres.database import autocommit, driver_connection

PIECE = 100  # collections that are made at once: about a millisecond
AT_ONCE = 2_000  # that are fetched at once
LIST_SECONDS = 60  # that a list may hold a connection
MOST = 10_000  # of a page
JSON = "application/json"

# Which collections, and with which context, says the view. Times and JSON as texts: Python may not be able to
# hold them.
SHOWN = """
        collection_id, collection_name, research_context AS description, created_by,
        to_json(created_at) #>> '{}' AS created_at, to_json(updated_at) #>> '{}' AS updated_at, color, icon,
        sort_order, linked_hypothesis_ids::text, linked_question_ids::text, collection_purpose, auto_update, (
            SELECT count(article_pmid)  -- rows with a pmid, not NULLs
            FROM article_collections
            WHERE article_collections.collection_id = listed.collection_id
        ) AS article_count"""
ORDERED = "ORDER BY listed.created_at, collection_id LIMIT $2"

# $1 project, $2 how many at most. Served as shared/phase/view.py says, and per collection by
# idx_article_collection_id.
LIST = f"""
    SELECT {SHOWN}
    FROM {VIEW} AS listed
    WHERE project_id = $1
    {ORDERED}
"""  # noqa: S608 - constants

# Of a row of `collections`: whether it is, or was, at home in the project $1, or is linked to it.
IN_PROJECT = f"""(project_id || '' = $1 OR EXISTS (
                SELECT FROM {VIEW} AS linked
                WHERE linked.project_id = $1 AND linked.collection_id = collections.collection_id
            ))"""

# The same behind the collection $3, which may have been deleted since. No created_at comes last. Served by
# collections_pkey as well.
LIST_AFTER = f"""
    SELECT {SHOWN}
    FROM {VIEW} AS listed
    WHERE project_id = $1
        AND (listed.created_at IS NULL, coalesce(listed.created_at, 'infinity'), collection_id) > (
            SELECT created_at IS NULL, coalesce(created_at, 'infinity'), collection_id
            FROM collections
            WHERE collection_id = $3 AND {IN_PROJECT}
        )
    {ORDERED}
"""  # noqa: S608 - constants
# The next piece of LIST or LIST_AFTER, for which the transaction has declared a cursor.
FETCH = f"FETCH {PIECE} FROM listed"
# Served by collections_pkey, and for a link as the list is.
IS_THERE = f"""
    SELECT EXISTS (SELECT FROM collections WHERE collection_id = $2 AND {IN_PROJECT})
"""  # noqa: S608 - constants

LISTED = TypeAdapter(list[ListedCollection])

Limit = Annotated[int | None, Query(ge=1, le=MOST, description="How many at most. Without it: all.")]
After = Annotated[
    str | None,
    Query(description="Only those behind this one: the last collection's id of the page before."),
]


@dataclass(frozen=True)
class Page:
    """Which part of a list is asked for: at most `limit` collections, those behind the collection `after`."""

    limit: int | None = None
    after: str | None = None

    @property
    def wanted(self) -> int | None:
        """How many rows to ask for: one more shows that more follow."""
        return None if self.limit is None else self.limit + 1

    def query(self, project_id: str, most: int | None) -> tuple[str, *tuple[str | int | None, ...]]:
        if self.after is None:
            return LIST, project_id, most
        return LIST_AFTER, project_id, most, self.after


class Listing:
    """A list as JSON, which grows row by row; of more than the page's limit the rest is left out."""

    def __init__(self, limit: int | None) -> None:
        self._limit = limit
        self.pieces: deque[bytes] = deque()
        self.collections = 0
        self.last: str | None = None
        self.has_more = False

    def add(self, rows: Sequence[asyncpg.Record]) -> None:
        if self._limit is not None and self.collections + len(rows) > self._limit:
            rows, self.has_more = rows[: self._limit - self.collections], True
        if rows:
            made = LISTED.dump_json(LISTED.validate_python([dict(row) for row in rows]))
            self.pieces.append((b"," if self.collections else b"[") + made[1:-1])
            self.collections += len(rows)
            self.last = rows[-1]["collection_id"]

    def end(self) -> None:
        self.pieces.append(b"]" if self.collections else b"[]")


async def list_collections(
    sync: CollectionSync, caller: str, project_id: str, page: Page = Page()
) -> Listing:
    """List the project's active collections with their article counts, oldest first.

    Raises:
        AccessDeniedError: the caller, whose e-mail address is resolved here, has no access.
        CollectionNotFoundError: the project never had the collection after which the page begins.
        TimeoutError: after LIST_SECONDS.

    """
    at_once = min(AT_ONCE + 1, page.wanted or AT_ONCE + 1)
    rows = await _fetch_at_once(sync, caller, project_id, page, at_once)
    listing = Listing(page.limit)
    if len(rows) == at_once != page.wanted:
        del rows
        await _fetch_in_pieces(sync, project_id, page, listing)
    elif len(rows) <= PIECE:
        listing.add(rows)
    else:
        for start in range(0, len(rows), PIECE):
            async with sync.long_lists.turn():
                listing.add(rows[start : start + PIECE])
    listing.end()
    sync.long_lists.note(project_id, listing.collections)
    return listing


async def _fetch_at_once(
    sync: CollectionSync, caller: str, project_id: str, page: Page, most: int
) -> Sequence[asyncpg.Record]:
    async with autocommit(sync.engine) as connection:
        user_id = await resolve_email(connection, caller)
        await require_access(connection, project_id, user_id)
        refuse_nul(page.after or "")
        driver: asyncpg.Connection = (await connection.get_raw_connection()).driver_connection
        rows: Sequence[asyncpg.Record] = await driver.fetch(*page.query(project_id, most))
        if rows or page.after is None or await driver.fetchval(IS_THERE, project_id, page.after):
            return rows
    raise CollectionNotFoundError


async def _fetch_in_pieces(sync: CollectionSync, project_id: str, page: Page, listing: Listing) -> None:
    async with (
        asyncio.timeout(LIST_SECONDS),
        driver_connection(sync.engine) as connection,
        connection.transaction(readonly=True),
    ):
        query, *parameters = page.query(project_id, page.wanted)
        await connection.execute(f"DECLARE listed NO SCROLL CURSOR FOR {query}", *parameters)
        while rows := await connection.fetch(FETCH):
            async with sync.long_lists.turn():
                listing.add(rows)


def answer(listing: Listing, page: Page) -> Response:
    """Return the list as a response; one that ends at the page's limit says where the next begins."""
    headers = {"Content-Length": str(sum(map(len, listing.pieces)))}
    if listing.has_more and listing.last is not None:
        headers["Link"] = f'<?limit={page.limit}&after={quote(listing.last, safe="")}>; rel="next"'
    if listing.collections <= AT_ONCE:
        return Response(b"".join(listing.pieces), HTTPStatus.OK, headers, JSON)
    return StreamingResponse(_sent(listing.pieces), HTTPStatus.OK, headers, JSON)


async def _sent(pieces: deque[bytes]) -> AsyncIterator[bytes]:
    """Let go of each piece when it is sent, and of the loop: a client that keeps up never makes us wait."""
    while pieces:
        yield pieces.popleft()
        await asyncio.sleep(0)
