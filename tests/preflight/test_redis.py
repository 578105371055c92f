"""What preflight says of a Redis with which ringing or listening does not work."""

from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

import asyncpg
import pytest
from pydantic import SecretStr
from redis.asyncio import Redis
from sqlalchemy.engine import make_url
from sqlalchemy.ext.asyncio import AsyncEngine

from shared.redis.client import open_redis
from shared.redis.doorbell import dismiss, ring
from shared.settings import Settings
from tests.doorbell.place import NOWHERE, names_of
from tests.preflight.conftest import checked
from worker.preflight.check import Check, Severity

REDIS_CHECKS = (
    "redis_server",
    "redis_rights",
    "redis_listening",
    "redis_memory",
    "redis_clock",
    "redis_sharing",
)


@pytest.fixture
async def redis(redis_url: str) -> AsyncIterator[Redis]:
    async with Redis.from_url(redis_url) as redis:
        yield redis


async def send(redis: Redis, *command: str) -> None:
    await redis.execute_command(*command)  # type: ignore[no-untyped-call]


@asynccontextmanager
async def as_user(redis: Redis, settings: Settings, *rules: str) -> AsyncIterator[Settings]:
    """Be a user whom these rules of Redis' ACL say what to do."""
    await send(redis, "ACL", "SETUSER", "limited", "reset", "on", ">secret", *rules)
    url = make_url(settings.redis_url.get_secret_value()).set(username="limited", password="secret")
    yield settings.model_copy(update={"redis_url": SecretStr(url.render_as_string(hide_password=False))})
    await send(redis, "ACL", "DELUSER", "limited")


ALL_CHANNELS, ALL_KEYS, ALL_COMMANDS = "allchannels", "~*", "+@all"


@pytest.mark.parametrize(
    ("rules", "check", "words"),
    [
        ((ALL_COMMANDS, ALL_KEYS), "redis_rights", "PUBLISH on collection_sync:preflight:wake"),
        (
            (ALL_COMMANDS, ALL_KEYS),
            "redis_rights",
            "SUBSCRIBE on collection_sync:preflight:wake, collection_sync:preflight:wake_bulk",
        ),
        ((ALL_COMMANDS, ALL_KEYS), "redis_listening", "not listen or publish"),
        ((ALL_COMMANDS, ALL_KEYS, ALL_CHANNELS, "-zadd"), "redis_rights", "Redis refuses ZADD;"),
        ((ALL_COMMANDS, ALL_CHANNELS, "~arq:*"), "redis_rights", "ZCARD on collection_sync:preflight:queue"),
        (
            (ALL_COMMANDS, ALL_CHANNELS, "~collection_sync:*"),
            "redis_rights",
            "DEL on arq:job:collection_sync:preflight:drain",
        ),
        ((ALL_COMMANDS, ALL_KEYS, ALL_CHANNELS, "-info"), "redis_server", "could not look: no permission"),
        ((ALL_COMMANDS, ALL_KEYS, ALL_CHANNELS, "-pubsub"), "redis_sharing", "could not look: no permission"),
    ],
)
async def test_a_right_that_is_missing_is_named(
    rules: tuple[str, ...], check: str, words: str, redis: Redis, settings: Settings
) -> None:
    async with as_user(redis, settings, *rules) as limited:
        made = await checked(limited)
        assert (made["redis"].state, made[check].state) == (Severity.OK, Severity.WARN)
        assert words in made[check].sentence


async def test_the_rights_that_the_fix_gives_are_enough(redis: Redis, settings: Settings) -> None:
    async with as_user(
        redis, settings, "+@connection", "+info", "+pubsub", "+time", "+multi", "+discard"
    ) as limited:
        fix = (await checked(limited))["redis_rights"].fix
        assert fix is not None
        await send(redis, *fix.split())
        fix = (await checked(limited))["redis_listening"].fix
        assert fix is None
        made = await checked(limited)
        assert {
            name: check.sentence for name, check in made.items() if name in REDIS_CHECKS and check.state
        } == {}


async def test_looking_leaves_nothing_behind(redis: Redis, settings: Settings) -> None:
    await checked(settings)
    assert await redis.keys("*") == []
    assert await redis.pubsub_channels("*") == []


async def test_a_redis_that_throws_keys_away_or_is_full_is_named(redis: Redis, settings: Settings) -> None:
    try:
        await redis.config_set("maxmemory", 10 * 2**30)
        await redis.config_set("maxmemory-policy", "allkeys-lru")
        check = (await checked(settings))["redis_memory"]
        assert (check.state, check.fix) == (Severity.WARN, "CONFIG SET maxmemory-policy noeviction")
        assert "allkeys-lru" in check.sentence
        await redis.config_set("maxmemory-policy", "noeviction")
        assert (await checked(settings))["redis_memory"].state is Severity.OK
        await redis.config_set("maxmemory", 1)
        assert "of 1 bytes" in (await checked(settings))["redis_memory"].sentence
    finally:
        await redis.config_set("maxmemory", 0)
        await redis.config_set("maxmemory-policy", "noeviction")


@pytest.mark.parametrize(
    ("said", "words"),
    [
        ({"redis_version": "4.0.9"}, "Redis 4.0.9 is too old"),
        ({"redis_mode": "cluster"}, "is a cluster"),
        ({"role": "slave"}, "leads to a replica"),
    ],
)
async def test_a_redis_that_takes_no_rings_is_named(
    said: dict[str, Any], words: str, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What a server that is none of the tests' would say of itself."""
    info = Redis.info

    async def saying(redis: Redis, *section: Any) -> dict[str, Any]:  # noqa: ANN401 - redis-py's own
        return {**await info(redis, *section), "valkey_version": None, **said}

    monkeypatch.setattr(Redis, "info", saying)
    check = (await checked(settings))["redis_server"]
    assert check.state is Severity.WARN
    assert words in check.sentence


async def test_a_copy_with_the_same_identity_is_suspected_where_more_listen_than_workers_live(
    redis: Redis, settings: Settings, sql: asyncpg.Connection
) -> None:
    names = await names_of(sql)
    async with AsyncExitStack() as listening:
        for _ in range(2):
            listener = await listening.enter_async_context(redis.pubsub())
            await listener.subscribe(*names.channels)
            await listener.get_message(timeout=None)
        another = await listening.enter_async_context(redis.pubsub())
        await another.subscribe(*NOWHERE.channels)  # of another database, which is nobody's business
        await another.get_message(timeout=None)
        await sql.execute("INSERT INTO worker_processes (name) VALUES ('alive')")
        check = (await checked(settings))["redis_sharing"]
        assert check.state is Severity.WARN
        assert check.sentence.startswith("2 processes listen for rings of this database")
        await sql.execute("INSERT INTO worker_processes (name) VALUES ('alive, too')")
        assert (await checked(settings))["redis_sharing"].state is Severity.OK


def unreached(check: Check) -> bool:
    return check.state is Severity.WARN and "was not reached" in check.sentence


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda url: url.set(port=1), "Redis cannot be reached"),
        (lambda url: url.set(password="wrong"), "Redis cannot be reached (authentication)"),
    ],
)
async def test_a_redis_that_is_away_is_one_check_and_the_others_say_that_they_were_not_made(
    change: Callable[[Any], Any], words: str, settings: Settings
) -> None:
    url = change(make_url(settings.redis_url.get_secret_value())).render_as_string(hide_password=False)
    made = await checked(settings.model_copy(update={"redis_url": SecretStr(url)}))
    assert (made["redis"].state, made["database"].state) == (Severity.WARN, Severity.OK)
    assert words in made["redis"].sentence
    assert "wrong" not in str(made)
    assert all(unreached(made[name]) for name in REDIS_CHECKS)


@pytest.mark.parametrize("without", [(), ("-@scripting",), ("-@transaction",)])
async def test_neither_scripts_nor_transactions_are_needed(
    without: tuple[str, ...], redis: Redis, settings: Settings, engine: AsyncEngine
) -> None:
    names = await names_of(engine)
    async with (
        as_user(redis, settings, ALL_COMMANDS, ALL_KEYS, ALL_CHANNELS, *without) as limited,
        open_redis(limited.redis_url.get_secret_value()) as client,
    ):
        await ring(client, names)
        assert await dismiss(client, names)
