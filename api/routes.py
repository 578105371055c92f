"""The endpoints. Mount `router` in any FastAPI app that enters `api.context.collection_sync`."""

from typing import Annotated

from fastapi import APIRouter, Depends, Path, Response

from api import collections, documentation, listing
from api.access import DEFAULT_CALLER, Caller
from api.collection_models import (
    CollectionChanges,
    CreatedCollection,
    DeletedCollection,
    ListedCollection,
    NewCollection,
    UpdatedCollection,
)
from api.context import Sync
from api.gate.gateway import DOCUMENTED, GatewayRoute
from api.idempotency import the_one_key
from api.sync_state import SyncState, read_sync_state

ProjectId = Annotated[str, Path(examples=["a1111111-0000-4000-8000-000000000001"])]
CollectionId = Annotated[str, Path(examples=["c1111111-0000-4000-8000-000000000001"])]

COLLECTIONS_PATH = "/projects/{project_id}/collections"
COLLECTION_PATH = "/projects/{project_id}/collections/{collection_id}"
SYNC_PATH = "/projects/{project_id}/collections/{collection_id}/sync"

# Clients of the legacy service send JSON without a Content-Type.
router = APIRouter(
    route_class=GatewayRoute, strict_content_type=False, dependencies=DOCUMENTED, tags=["collections"]
)


@router.get(COLLECTIONS_PATH, response_model=list[ListedCollection], responses=documentation.LIST)
async def list_collections(
    sync: Sync,
    project_id: ProjectId,
    limit: listing.Limit = None,
    after: listing.After = None,
    caller: Caller = DEFAULT_CALLER,
) -> Response:
    """List the project's active collections, oldest first. Never cached.

    All of them, on one snapshot, unless a `limit` is given. Where more follow then, the header `Link` leads
    to the next page, which begins behind the last collection of this one, even if that was deleted meanwhile.
    """
    page = listing.Page(limit, after)
    answer = listing.answer(await listing.list_collections(sync, caller, project_id, page), page)
    answer.background = sync.shadow.sampled(project_id)
    return answer


@router.post(COLLECTIONS_PATH, responses=documentation.CREATE)
async def create_collection(
    sync: Sync,
    project_id: ProjectId,
    new: NewCollection,
    key: Annotated[str | None, Depends(the_one_key)],
    caller: Caller = DEFAULT_CALLER,
) -> CreatedCollection:
    """Create a collection. Answers 200, as it always has.

    A client that does not know what became of its request may send it again when it had an
    `Idempotency-Key`: what was created is not created again, and the answer is the first one, whatever
    became of the collection since. Keys of other users and of other projects are others.
    """
    row = await collections.create_collection(sync, caller, project_id, new.values(), key)
    return CreatedCollection.model_validate(dict(row))


@router.put(COLLECTION_PATH, responses=documentation.CHANGE)  # before DELETE: 405 says `Allow: PUT`
async def update_collection(
    sync: Sync,
    project_id: ProjectId,
    collection_id: CollectionId,
    changes: CollectionChanges,
    caller: Caller = DEFAULT_CALLER,
) -> UpdatedCollection:
    """Change the fields that are given; a field that is null or absent keeps its value."""
    row = await collections.update_collection(sync, caller, project_id, collection_id, changes.values())
    return UpdatedCollection.model_validate(dict(row))


@router.delete(COLLECTION_PATH, responses=documentation.WRITE_TO_ONE)
async def delete_collection(
    sync: Sync, project_id: ProjectId, collection_id: CollectionId, caller: Caller = DEFAULT_CALLER
) -> DeletedCollection:
    """Delete a collection. Its articles stay."""
    await collections.delete_collection(sync, caller, project_id, collection_id)
    return DeletedCollection()


@router.get(SYNC_PATH, responses=documentation.READ_ONE)
async def read_collection_sync(
    sync: Sync, project_id: ProjectId, collection_id: CollectionId, caller: Caller = DEFAULT_CALLER
) -> SyncState:
    """Return whether `project_collections` shows the collection as it was written last.

    A deleted collection answers too: when it is synced, its row is gone. Changes that were made by hand
    in SQL have no event and are not seen here: finding them is the audit's task.
    """
    return await read_sync_state(sync, caller, project_id, collection_id)
