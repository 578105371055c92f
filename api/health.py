"""Whether the process lives, and whether it can do its work."""

import asyncio
from collections.abc import Sequence
from contextlib import suppress
from http import HTTPStatus
from typing import Literal

import asyncpg
from fastapi import APIRouter, Response
from pydantic import BaseModel
from redis.asyncio import Redis
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.ext.asyncio import AsyncEngine

from api.context import Sync
from api.gate.forgiving_route import ForgivingRoute
from shared.migration_state import read_revision
from shared.postgres.advice import advice_on
from shared.postgres.database import refuse_wrong_sequences
from shared.postgres.pooler import PoolerError, UnfitServerError
from shared.redis.client import RedisCommand
from shared.redis.deployment import UNLEARNED, Deployment
from shared.redis.doorbell import ring_commands
from shared.redis.faults import REDIS_ERRORS, fault_of, faults_in
from shared.redis.rehearsal import rehearse
from shared.revision import REVISION

POSTGRESQL_SECONDS = 1.0  # SQLAlchemy takes up to two more to give up a connection that hangs
REDIS_SECONDS = 0.8
# SQLAlchemy passes on as they are those of asyncpg's errors that come before there is a connection.
POSTGRESQL_ERRORS = (SQLAlchemyError, asyncpg.PostgresError, asyncpg.InterfaceError, OSError, TimeoutError)


class Alive(BaseModel):
    """The process answers."""

    status: Literal["alive"] = "alive"


class Check(BaseModel):
    """One thing the service needs, or would like to have, and what to do when it is not there."""

    ok: bool
    required: bool
    what_to_do: str | None = None


class Readiness(BaseModel):
    """Ready when everything that is required is there."""

    status: Literal["ready", "not ready"]
    checks: dict[str, Check]


def judge_revision(revision: str | None) -> Check:
    """Compare the database's migration with the one that this code needs; a newer one only adds to it."""
    if revision is not None and revision >= REVISION:
        return Check(ok=True, required=True)
    found = "not migrated" if revision is None else f"at revision {revision}"
    advice = f"The database is {found}; this version needs {REVISION}: run alembic upgrade head."
    return Check(ok=False, required=True, what_to_do=advice)


async def check_postgresql(engine: AsyncEngine) -> dict[str, Check]:
    """Ask PostgreSQL for its revision and its sequences; an answer shows that it can be reached. Bounded."""
    try:
        async with asyncio.timeout(POSTGRESQL_SECONDS):
            async with engine.connect() as connection:
                revision = await read_revision(connection)
            await refuse_wrong_sequences(engine)
    except (PoolerError, UnfitServerError) as error:
        return _unreachable(str(error))
    except POSTGRESQL_ERRORS as error:
        name = type(error).__name__
        away = f"No answer from DATABASE_URL ({name}): start PostgreSQL or correct the URL."
        return _unreachable(advice_on(error) or away)
    return {"postgresql": Check(ok=True, required=True), "migrations": judge_revision(revision)}


def _unreachable(advice: str) -> dict[str, Check]:
    return {
        "postgresql": Check(ok=False, required=True, what_to_do=advice),
        "migrations": Check(
            ok=False, required=True, what_to_do="Not known while PostgreSQL does not answer."
        ),
    }


async def check_redis(redis: Redis, deployment: Deployment) -> dict[str, Check]:
    """Ask Redis whether it would take a ring. Without one events wait for a sweep, nothing else. Bounded.

    While it is not known where to ring, it is only asked whether it lets us in.
    """
    commands: Sequence[RedisCommand] = (("PING",),)
    with suppress(*UNLEARNED):
        async with asyncio.timeout(POSTGRESQL_SECONDS):
            commands = ring_commands(await deployment.names(), "live")
    try:
        async with asyncio.timeout(REDIS_SECONDS):
            answers = await rehearse(redis, commands)
    except REDIS_ERRORS as error:
        faults = [fault_of(error)]
    else:
        faults = faults_in(answers, commands)
    if not faults:
        return {"redis": Check(ok=True, required=False)}
    what = faults[0].hint or f"No answer from REDIS_URL ({faults[0].error})"
    advice = f"{what}. Writes succeed, but reach workers later."
    return {"redis": Check(ok=False, required=False, what_to_do=advice)}


health = APIRouter(tags=["health"], route_class=ForgivingRoute)


@health.get("/healthz", summary="Liveness")
async def healthz() -> Alive:
    """Answer that the process is alive. Touches nothing else: a restart would not cure what is outside."""
    return Alive()


@health.get("/readyz", summary="Readiness", responses={HTTPStatus.SERVICE_UNAVAILABLE: {"model": Readiness}})
async def readyz(sync: Sync, response: Response) -> Readiness:
    """Return whether requests can be served, and what to do where they cannot."""
    postgresql, redis = await asyncio.gather(
        check_postgresql(sync.engine), check_redis(sync.redis, sync.doorbell.deployment)
    )
    checks = postgresql | redis
    if all(check.ok for check in checks.values() if check.required):
        return Readiness(status="ready", checks=checks)
    response.status_code = HTTPStatus.SERVICE_UNAVAILABLE
    return Readiness(status="not ready", checks=checks)
