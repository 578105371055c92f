"""A Redis that is there and refuses something: each process names what, and goes on without it."""

import asyncio
import re
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass

import asyncpg
import pytest
from pydantic import SecretStr
from redis._parsers.base import BaseParser
from redis.asyncio import Redis
from sqlalchemy.engine import make_url
from sqlalchemy.ext.asyncio import AsyncEngine
from structlog.testing import capture_logs

from shared.redis.client import open_redis
from shared.redis.deployment import Names
from shared.redis.doorbell import RingRefusedError, ring
from shared.redis.faults import REDIS_ERRORS, fault_of
from shared.redis.outage import MOST_LINES
from shared.settings import Settings
from tests.api.test_health import readiness
from tests.api.unhurried import take_time
from tests.doorbell.patience import be_patient_with_redis
from tests.doorbell.place import names_of
from tests.doorbell.test_lost_wakeups import NEVER_SECONDS
from tests.drift import drained
from tests.legacy_rows import seed, set_collection
from tests.processes import HANG_SECONDS
from worker.main import arq_settings, build_worker


@dataclass(frozen=True)
class World:
    """A Redis that refuses something: by its ACL, for want of the password, or for what was done to it."""

    hint: str  # a pattern of how it begins
    rules: tuple[str, ...] = ("+@all", "~*", "&*")
    password: str | None = "secret"
    is_heard: bool = False  # what can be rung reaches some worker
    done: tuple[tuple[str, ...], ...] = ()
    undone: tuple[tuple[str, ...], ...] = ()
    is_refused_to_api: bool = True


WORLDS = {
    "no channels": World(
        r"Redis refuses (PUBLISH|SUBSCRIBE) \(NOPERM channel\): ACL", ("+@all", "~*"), is_heard=True
    ),
    "no PUBLISH": World(
        r"Redis refuses PUBLISH \(NOPERM command\): ACL", ("+@all", "~*", "&*", "-publish"), is_heard=True
    ),
    "no SUBSCRIBE": World(
        r"Redis refuses SUBSCRIBE \(NOPERM command\): ACL",
        ("+@all", "~*", "&*", "-subscribe"),
        is_heard=True,
        is_refused_to_api=False,
    ),
    "no ZADD": World(
        r"Redis refuses ZADD \(NOPERM command\): ACL", ("+@all", "~*", "&*", "-zadd"), is_heard=True
    ),
    "no keys": World("Redis refuses ", ("+@all", "~others:*", "&*"), is_heard=True),
    "a replica": World(
        r"Redis refuses \w+ \(READONLY\): let REDIS_URL lead to the primary",
        is_heard=True,
        done=(("REPLICAOF", "127.0.0.1", "1"),),
        undone=(("REPLICAOF", "NO", "ONE"),),
    ),
    "a full one": World(
        r"Redis refuses \w+ \(OOM\): raise maxmemory",
        is_heard=True,
        done=(("CONFIG", "SET", "maxmemory", "1"),),
        undone=(("CONFIG", "SET", "maxmemory", "0"),),
    ),
    "no password": World(r"Redis refuses us \(NOAUTH\): put", password=None),
    "a wrong password": World(r"Redis refuses us \(WRONGPASS\): correct", password="wrong"),
}


@asynccontextmanager
async def refusing(world: World, settings: Settings) -> AsyncIterator[Settings]:
    """Let it be so while the block runs; yields the settings of who meets with it."""
    url = make_url(settings.redis_url.get_secret_value())
    async with Redis.from_url(settings.redis_url.get_secret_value()) as redis, AsyncExitStack() as undone:

        async def send(*command: str) -> None:
            await redis.execute_command(*command)

        await send("ACL", "SETUSER", "limited", "reset", "on", ">secret", *world.rules)
        undone.push_async_callback(send, "ACL", "DELUSER", "limited")
        for command in world.undone:
            undone.push_async_callback(send, *command)
        for command in world.done:
            await send(*command)
        user = None if world.password is None else "limited"
        limited = url._replace(username=user, password=world.password)
        yield settings.model_copy(
            update={"redis_url": SecretStr(limited.render_as_string(hide_password=False))}
        )


@pytest.fixture(autouse=True)
def _patient(monkeypatch: pytest.MonkeyPatch) -> None:
    be_patient_with_redis(monkeypatch)
    take_time(monkeypatch.setattr)


@pytest.mark.parametrize("name", WORLDS)
async def test_what_is_refused_is_named_by_ring_readiness_and_worker_and_events_are_applied_without_it(
    name: str, settings: Settings, engine: AsyncEngine, sql: asyncpg.Connection
) -> None:
    world = WORLDS[name]
    await seed(sql)
    async with refusing(world, settings) as limited:
        await require_ring(limited, await names_of(engine), world)
        await require_readiness(limited, world)
        await require_worker(limited, world, engine, sql)


async def require_ring(settings: Settings, names: Names, world: World) -> None:
    async with open_redis(settings.redis_url.get_secret_value()) as redis:
        if not world.is_refused_to_api:
            await ring(redis, names)
            return
        with pytest.raises((RingRefusedError, *REDIS_ERRORS)) as refused:
            await ring(redis, names)
    error = refused.value
    fault = error.fault if isinstance(error, RingRefusedError) else fault_of(error)
    assert re.match(world.hint, fault.hint or "")
    assert (isinstance(error, RingRefusedError) and error.is_heard) == world.is_heard


async def require_readiness(settings: Settings, world: World) -> None:
    """It is ready: Redis is no condition."""
    status, body = await readiness(settings)
    check = body["checks"]["redis"]
    assert (status, check["ok"]) == (200, not world.is_refused_to_api)
    if world.is_refused_to_api:
        assert re.match(world.hint, check["what_to_do"])
        assert "secret" not in check["what_to_do"]


async def require_worker(
    settings: Settings, world: World, engine: AsyncEngine, sql: asyncpg.Connection
) -> None:
    """It says `refuses`, and why, and finds by itself what nobody can ring for; here it has no sweep."""
    arguments = arq_settings(settings) | {"on_startup": None, "handle_signals": False}
    deployment, heart = arguments["ctx"]["deployment"], arguments["ctx"]["heart"]
    worker = build_worker(settings, arguments)
    await deployment.learn()
    with capture_logs() as lines:
        working = asyncio.create_task(worker.main())
        async with asyncio.timeout(HANG_SECONDS):
            while not (beats := [line for line in lines if line.get("redis") == "refuses"]):
                await heart.beat()
                await asyncio.sleep(0.02)
        await set_collection(engine, "c1", "text")
        await drained(sql)
        working.cancel()
        await asyncio.wait([working])
        await worker.close()
    assert re.match(world.hint, beats[0]["hint"])
    lost = [line for line in lines if line["event"] == "redis_lost"]
    assert any(re.match(world.hint, line.get("hint", "")) for line in lost), lost
    assert "secret" not in str(lines)
    assert len([line for line in lines if line["event"].startswith("redis_")]) <= MOST_LINES


async def test_a_worker_that_may_not_read_the_identity_says_what_to_run_and_applies_events_without_rings(
    settings: Settings, engine: AsyncEngine, sql: asyncpg.Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As where `deploy/roles.sql` was not run again after the migration."""
    monkeypatch.setattr("worker.doorbell.listener.UNNAMED_SECONDS", 0.05)
    await seed(sql)
    denied = asyncpg.InsufficientPrivilegeError("permission denied for table collection_sync_version")

    async def read(_connection: asyncpg.Connection) -> str:
        raise denied

    monkeypatch.setattr("shared.redis.deployment.read_identity", read)
    arguments = arq_settings(settings) | {"on_startup": None, "handle_signals": False}
    duties = arguments["ctx"]["duties"]
    duties._rest = asyncio.Event().wait  # noqa: SLF001 - one tick, and no sweep after it
    heart, worker = arguments["ctx"]["heart"], build_worker(settings, arguments)
    with capture_logs() as lines:
        duties.start()
        working = asyncio.create_task(worker.main())
        async with asyncio.timeout(HANG_SECONDS):
            while not (beats := [line for line in lines if line.get("redis") == "refuses"]):
                await heart.beat()
                await asyncio.sleep(0.02)
        await set_collection(engine, "c1", "text")
        await drained(sql)
        working.cancel()
        await asyncio.wait([working])
        await worker.close()
    assert "run deploy/roles.sql again" in beats[0]["hint"]
    assert any(line["event"] == "duty_failed" and line["duty"] == "identity" for line in lines)


async def test_a_redis_without_scripts_and_transactions_is_up(
    settings: Settings, engine: AsyncEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("worker.doorbell.arq_worker.DIRECT_DRAIN_SECONDS", NEVER_SECONDS)
    world = World("", ("+@all", "~*", "&*", "-@scripting"))
    async with refusing(world, settings) as limited:
        async with open_redis(limited.redis_url.get_secret_value()) as redis:
            await ring(redis, await names_of(engine))
        _, body = await readiness(limited)
    assert body["checks"]["redis"]["ok"]


ANSWERS = {
    "MOVED 3999 127.0.0.1:6381": (
        "Redis refuses SET (MOVED): let REDIS_URL lead to a Redis that is no cluster"
    ),
    "CROSSSLOT Keys in request don't hash to the same slot": (
        "Redis refuses SET (CROSSSLOT): let REDIS_URL lead to a Redis that is no cluster"
    ),
    "CLUSTERDOWN Hash slot not served": (
        "Redis refuses SET (CLUSTERDOWN): let REDIS_URL lead to a Redis that is no cluster"
    ),
    "LOADING Redis is loading the dataset in memory": (
        "Redis refuses SET (LOADING): wait until Redis has loaded its data"
    ),
    "MISCONF Redis is configured to save RDB snapshots, but it's currently unable to": (
        "Redis refuses SET (MISCONF): let Redis write to its disk again,"
        " or CONFIG SET stop-writes-on-bgsave-error no"
    ),
    "NOREPLICAS Not enough good replicas to write.": (
        "Redis refuses SET (NOREPLICAS): start the replicas that min-replicas-to-write asks for"
    ),
    "ERR unknown command 'SET', with args beginning with: 'what somebody wrote'": (
        "Redis refuses SET (unknown command)"
    ),
    "NOPERM this user has no permissions to access one of the keys used as arguments": (
        "Redis refuses SET (NOPERM key): ACL SETUSER … ~collection_sync:* ~arq:*"
    ),
    "what somebody wrote": "Redis refuses SET (ERR)",
}


@pytest.mark.parametrize("answer", ANSWERS)
def test_every_answer_is_named_and_none_is_repeated(answer: str) -> None:
    assert fault_of(BaseParser.parse_error(answer), "SET").hint == ANSWERS[answer]  # type: ignore[no-untyped-call]


@pytest.mark.parametrize("error", [ConnectionError(), TimeoutError(), OSError()])
def test_what_does_not_answer_refuses_nothing(error: Exception) -> None:
    assert fault_of(error).hint is None
