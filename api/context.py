"""What the endpoints need from the process they run in, and how to set it up and take it down."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from typing import Annotated

import structlog
from fastapi import Depends, FastAPI, Request
from redis.asyncio import Redis
from sqlalchemy.ext.asyncio import AsyncEngine

from api.gate.admission import PLACE_WAIT_SECONDS, POOL_SIZE, Bulkheads
from api.gate.long_lists import LongLists
from api.shadow.sampler import Shadow, shadow_engine
from shared.events import EventType
from shared.planner import REQUESTS
from shared.postgres.database import create_engine, refuse_wrong_pooler
from shared.redis.client import open_redis
from shared.redis.deployment import Deployment
from shared.redis.doorbell import Doorbell
from shared.settings import Settings
from shared.status.looked import Looks
from shared.status.session import engine_of

logger = structlog.get_logger(__name__)


@dataclass(frozen=True)
class CollectionSync:
    """The resources that all requests of one app share."""

    settings: Settings
    engine: AsyncEngine
    redis: Redis
    doorbell: Doorbell
    bulkheads: Bulkheads
    # On a connection of its own: it takes none from users, and is lent whatever the server's state.
    looks: Looks
    shadow: Shadow
    long_lists: LongLists = field(default_factory=LongLists)
    appended: Counter[EventType] = field(default_factory=Counter)  # events of writes that are committed


def report_silence(task: asyncio.Task[None]) -> None:
    """Log that the doorbell's task ended by itself: from here on only the worker's sweep finds events."""
    if not task.cancelled():
        logger.error("doorbell_stopped", error=type(task.exception()).__name__)


@asynccontextmanager
async def ringing(doorbell: Doorbell) -> AsyncIterator[None]:
    task = asyncio.create_task(doorbell.run(), name="doorbell")
    task.add_done_callback(report_silence)
    try:
        yield
    finally:
        task.cancel()
        await asyncio.wait([task])


@asynccontextmanager
async def collection_sync(app: FastAPI, settings: Settings) -> AsyncIterator[None]:
    """Give `app` what the router's endpoints need, for as long as the body runs.

    An app that mounts `api.routes.router` enters this in its own lifespan. Neither PostgreSQL nor
    Redis has to be up.

    Raises:
        PoolerError: its sessions would not be what they must be; the message says what to set.

    """
    async with AsyncExitStack() as stack:
        engine = create_engine(
            settings,
            application_name="collection-sync api",
            pool_size=POOL_SIZE,
            pool_timeout_seconds=PLACE_WAIT_SECONDS,
            statement_timeout_seconds=10,
            session=REQUESTS,
        )
        stack.push_async_callback(engine.dispose)
        await refuse_wrong_pooler(engine)
        redis = open_redis(settings.redis_url.get_secret_value())
        stack.push_async_callback(redis.aclose)
        doorbell = Doorbell(redis, Deployment.of(engine))
        await stack.enter_async_context(ringing(doorbell))
        looks = Looks(await stack.enter_async_context(engine_of(settings)))
        comparing = shadow_engine(settings)
        stack.push_async_callback(comparing.dispose)
        shadow = Shadow(comparing, settings.shadow_share)
        await stack.enter_async_context(shadow.running())
        app.state.collection_sync = CollectionSync(
            settings, engine, redis, doorbell, Bulkheads(), looks, shadow
        )
        yield


def of_request(request: Request) -> CollectionSync:
    sync: CollectionSync = request.app.state.collection_sync
    return sync


async def provided(request: Request) -> CollectionSync:
    """Do the same as a dependency; one that is not async would take a thread for every request."""
    return of_request(request)


Sync = Annotated[CollectionSync, Depends(provided)]
