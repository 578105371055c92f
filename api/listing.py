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

from api.access import IS_KNOWN, refuse_nul
from api.collection_models import DEFAULT_PURPOSE
from api.context import CollectionSync
from api.gate.errors import AccessDeniedError, CollectionNotFoundError
from api.listed_items import as_json
from shared.phase.view import VIEW
from shared.postgres.database import driver_connection

PIECE = 100  # collections that are made at once: less than a millisecond
AT_ONCE = 2_000  # that are fetched at once
LIST_SECONDS = 60  # that a list may hold a connection
MOST = 10_000  # of a page
JSON = "application/json"

# Which collections, and with which context, says the view. Times and JSON as texts: Python may not be able to
# hold them. The order is that of an answer's keys.
SHOWN = f"""
        collection_id, collection_name, research_context AS description, created_by,
        to_json(created_at) #>> '{{}}' AS created_at, to_json(updated_at) #>> '{{}}' AS updated_at,
        color, icon, sort_order, (
            SELECT count(article_pmid)  -- rows with a pmid, not NULLs
            FROM article_collections
            WHERE article_collections.collection_id = listed.collection_id
        ) AS article_count, linked_hypothesis_ids::text, linked_question_ids::text,
        coalesce(nullif(collection_purpose, ''), '{DEFAULT_PURPOSE}') AS collection_purpose,
        coalesce(auto_update, false) AS auto_update"""  # noqa: S608 - constants
ORDERED = "ORDER BY listed.created_at, collection_id LIMIT $3"

# $1 project, $2 caller, $3 how many at most. To whom the project is closed it has no rows. Served as
# api/access.py and shared/phase/view.py say, and per collection by idx_article_collection_id.
LIST = f"""
    SELECT {SHOWN}
    FROM {VIEW} AS listed
    WHERE project_id = $1 AND (SELECT {IS_KNOWN})
    {ORDERED}
"""  # noqa: S608 - constants

# Of a row of `collections`: whether it is, or was, at home in the project $1, or is linked to it.
IN_PROJECT = f"""(project_id || '' = $1 OR EXISTS (
                SELECT FROM {VIEW} AS linked
                WHERE linked.project_id = $1 AND linked.collection_id = collections.collection_id
            ))"""

# The same behind the collection $4, which may have been deleted since. No created_at comes last. Served by
# collections_pkey as well.
LIST_AFTER = f"""
    SELECT {SHOWN}
    FROM {VIEW} AS listed
    WHERE project_id = $1 AND (SELECT {IS_KNOWN})
        AND (listed.created_at IS NULL, coalesce(listed.created_at, 'infinity'), collection_id) > (
            SELECT created_at IS NULL, coalesce(created_at, 'infinity'), collection_id
            FROM collections
            WHERE collection_id = $4 AND {IN_PROJECT}
        )
    {ORDERED}
"""  # noqa: S608 - constants
# The next piece of LIST or LIST_AFTER, for which the transaction has declared a cursor.
FETCH = f"FETCH {PIECE} FROM listed"
# Why a list has no rows: $3 is the collection behind which it begins, or NULL. Served as api/access.py says,
# by collections_pkey, and for a link as the list is.
WHY_NONE = f"""
    SELECT {IS_KNOWN} AS is_allowed, $3::text IS NULL OR EXISTS (
        SELECT FROM collections WHERE collection_id = $3 AND {IN_PROJECT}
    ) AS is_there
"""  # noqa: S608 - constants

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

    def query(
        self, project_id: str, caller: str, most: int | None
    ) -> tuple[str, *tuple[str | int | None, ...]]:
        if self.after is None:
            return LIST, project_id, caller, most
        return LIST_AFTER, project_id, caller, most, self.after


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
            self.pieces.append((b"," if self.collections else b"[") + as_json(rows)[1:-1])
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
    refuse_nul(caller, project_id, page.after or "")
    at_once = min(AT_ONCE + 1, page.wanted or AT_ONCE + 1)
    rows = await _fetch_at_once(sync, caller, project_id, page, at_once)
    listing = Listing(page.limit)
    if len(rows) == at_once != page.wanted:
        del rows
        await _fetch_in_pieces(sync, caller, project_id, page, listing)
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
    async with driver_connection(sync.engine) as connection:
        rows: Sequence[asyncpg.Record] = await connection.fetch(*page.query(project_id, caller, most))
        if not rows:
            await _require_none(connection, caller, project_id, page)
        return rows


async def _require_none(connection: asyncpg.Connection, caller: str, project_id: str, page: Page) -> None:
    """Make sure that a list without rows is one.

    Raises:
        AccessDeniedError, CollectionNotFoundError: it is none.

    """
    why = await connection.fetchrow(WHY_NONE, project_id, caller, page.after)
    if not why["is_allowed"]:
        raise AccessDeniedError
    if not why["is_there"]:
        raise CollectionNotFoundError


async def _fetch_in_pieces(
    sync: CollectionSync, caller: str, project_id: str, page: Page, listing: Listing
) -> None:
    async with (
        asyncio.timeout(LIST_SECONDS),
        driver_connection(sync.engine) as connection,
        connection.transaction(readonly=True),
    ):
        query, *parameters = page.query(project_id, caller, page.wanted)
        await connection.execute(f"DECLARE listed NO SCROLL CURSOR FOR {query}", *parameters)
        while rows := await connection.fetch(FETCH):
            async with sync.long_lists.turn():
                listing.add(rows)
        if not listing.collections:
            await _require_none(connection, caller, project_id, page)


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
