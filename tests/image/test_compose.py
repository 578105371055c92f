"""Compose's file as it is, by compose and an engine: what starts, with which rights, and how it ends."""

import asyncio
import json
from subprocess import CompletedProcess

import asyncpg
import httpx
import pytest

from tests.deploy.test_container import COMPOSE
from tests.drift import drained, drift
from tests.image.compose import WORKERS, System
from tests.image.engine import Engine
from tests.legacy_rows import seed, target_rows

USER = 10_001
ANY_USER = 123_456
CONFINED = ("api", "worker")
# What a user of the image could write to: the kernel's own places aside, only the volume of logs.
WRITABLE = ("find", "/", "-writable", "!", "-type", "l", "!", "-path", "/proc*", "!", "-path", "/dev/*")
CHECK = COMPOSE["worker"]["healthcheck"]["test"][1:]
FORK_UNTIL_REFUSED = """
import os, signal
forked = []
try:
    while len(forked) < 1000:
        forked.append(os.fork() or signal.pause())
except BlockingIOError:
    print(len(forked))
for pid in forked:
    os.kill(pid, signal.SIGKILL)
"""
ASK_BY_IPV6 = """
from http.client import HTTPConnection
connection = HTTPConnection("::1", 9000)
connection.request("GET", "/readyz")
assert connection.getresponse().status == 200
"""
LIMITS = {  # of version 2 of control groups, and of version 1
    "cpu.max": "100000 100000",
    "memory.max": str(512 * 2**20),
    "pids.max": "100",
    "cpu/cpu.cfs_quota_us": "100000",
    "memory/memory.limit_in_bytes": str(512 * 2**20),
    "pids/pids.max": "100",
}


@pytest.fixture
async def projects(database: asyncpg.Connection) -> asyncpg.Connection:
    if not await database.fetchval("SELECT count(*) FROM projects"):
        await seed(database)
    return database


def test_the_migration_ends_before_the_others_begin(system: System) -> None:
    (migrate,) = system.containers("migrate")
    state = system.engine.inspect(migrate)["State"]
    assert (state["Status"], state["ExitCode"]) == ("exited", 0)
    for service in CONFINED:
        for container in system.containers(service):
            assert system.engine.inspect(container)["State"]["StartedAt"] > state["FinishedAt"]


def test_only_the_api_is_published_and_only_on_loopback(system: System) -> None:
    published = {
        service: [binding for port in ports.values() for binding in port or []]
        for service in ("postgres", "redis", *CONFINED)
        for container in system.containers(service)
        if (ports := system.engine.inspect(container)["NetworkSettings"]["Ports"]) is not None
    }
    assert published.pop("api") == [{"HostIp": "127.0.0.1", "HostPort": str(system.port)}]
    assert not any(published.values())
    assert httpx.get(f"{system.api}/docs/swagger-ui.css").is_success


@pytest.mark.parametrize("service", CONFINED)
def test_each_process_is_a_user_without_any_right(service: str, system: System) -> None:
    (container, *_) = system.containers(service)
    status = dict(
        line.split(":\t", 1)
        for line in system.engine.said("exec", container, "cat", "/proc/1/status").splitlines()
        if ":\t" in line
    )
    assert {status["Uid"], status["Gid"]} == {"\t".join([str(USER)] * 4)}
    assert [int(status[f"Cap{which}"], 16) for which in ("Inh", "Prm", "Eff", "Bnd", "Amb")] == [0] * 5
    assert (status["NoNewPrivs"], status["Seccomp"]) == ("1", "2")


@pytest.mark.parametrize("service", CONFINED)
def test_each_can_write_to_its_logs_and_nowhere_else(service: str, system: System) -> None:
    (container, *_) = system.containers(service)
    found = system.engine.docker("exec", container, *WRITABLE).stdout.split()  # some it may not enter
    assert found[0] == "/var/log/collection-sync"
    assert f"/var/log/collection-sync/{service}.log" in found
    assert all(place.startswith(found[0]) for place in found)


@pytest.mark.parametrize("service", CONFINED)
def test_the_kernel_has_the_limits_of_the_file(service: str, system: System) -> None:
    (container, *_) = system.containers(service)
    limits = system.engine.docker(
        "exec", container, "grep", "", *[f"/sys/fs/cgroup/{each}" for each in LIMITS]
    )
    found = dict(line.removeprefix("/sys/fs/cgroup/").split(":", 1) for line in limits.stdout.splitlines())
    assert len(found) == len(LIMITS) / 2
    assert found == {name: LIMITS[name] for name in found}


def test_a_container_cannot_have_more_than_a_hundred_processes(system: System) -> None:
    forked = run_once(system, "python", "-c", FORK_UNTIL_REFUSED)
    assert 90 <= int(forked.stdout) < 100


def test_a_container_that_takes_more_memory_is_killed_alone(system: System) -> None:
    assert run_once(system, "python", "-c", "bytearray(600 * 2**20)").returncode == 137
    assert run_once(system, "python", "-c", "bytearray(300 * 2**20)").returncode == 0


async def test_a_write_arrives(system: System, projects: asyncpg.Connection) -> None:
    made = await system.write("Reef")
    await drained(projects)
    (row,) = await target_rows(projects, made)
    assert row["research_context"] == "Reef"


async def test_a_worker_under_any_number_does_what_the_image_s_user_does(
    system: System, projects: asyncpg.Connection
) -> None:
    """As OpenShift starts it: a number that no file knows, in group 0; here it is alone."""
    system.composed("stop", "worker")
    flags = ("--detach", "--no-deps", "--user", f"{ANY_USER}:0", "-e", "LOG_FILE=")
    container = system.composed("run", *flags, "worker").split()[-1]
    try:
        assert system.engine.said("exec", container, "id", "-u").split() == [str(ANY_USER)]
        await system.write("Atoll")
        await drained(projects)
        assert await drift(projects) == []
        system.engine.said("exec", container, *CHECK)
        system.engine.said("stop", "--time", "15", container)
        assert system.engine.inspect(container)["State"]["ExitCode"] == 0
    finally:
        system.engine.said("rm", "--force", container)
        system.composed("start", "worker")


def test_operators_commands_run_beside_them(system: System) -> None:
    assert "\nIn sync" in run_once(system, "python", "-m", "worker.backfill", "--wait").stdout
    log = ("python", "-m", "worker.dashboard", "/var/log/collection-sync/worker.log", "--json")
    assert json.loads(run_once(system, *log).stdout)


def test_an_api_is_unwell_while_it_cannot_serve_at_the_port_that_its_platform_chose(
    engine: Engine, system: System
) -> None:
    """By `docker run`, with IPv6, and with a proxy that nobody may be sent to."""
    variables = {
        "DATABASE_URL": f"postgresql://postgres:{system.password}@postgres:5432/postgres",
        "REDIS_URL": "redis://redis:6379/0",
        "PORT": "9000",
        "http_proxy": "http://127.0.0.1:1",
        "HTTP_PROXY": "http://127.0.0.1:1",
    }
    given = [word for pair in variables.items() for word in ("--env", "=".join(pair))]
    confined = ("--read-only", "--cap-drop", "ALL", "--security-opt", "no-new-privileges")
    on_network = ("--network", system.network, "--sysctl", "net.ipv6.conf.all.disable_ipv6=0")
    flags = (*confined, *given, *on_network, "--health-interval", "1s")
    container = engine.said("run", "--detach", *flags, system.image).strip()
    try:
        engine.until(container, "healthy")
        engine.said("exec", container, "python", "-c", ASK_BY_IPV6)
        system.composed("stop", "postgres")
        engine.until(container, "unhealthy")
        system.composed("start", "postgres")
        engine.until(container, "healthy")
    finally:
        engine.said("rm", "--force", container)


def test_the_engine_finds_each_of_them_healthy(system: System) -> None:
    for service in ("postgres", "redis", *CONFINED):
        for container in system.containers(service):
            system.engine.until(container, "healthy")


async def test_what_is_asked_to_end_finishes_what_it_has_and_ends_in_time(
    system: System, projects: asyncpg.Connection
) -> None:
    """A request waits for a row that we hold; the API is told to end, and ends after the answer."""
    made = await system.write("Held")
    (api,) = system.containers("api")
    async with asyncio.TaskGroup() as group, httpx.AsyncClient(timeout=90) as client:
        async with projects.transaction():
            await projects.execute("SELECT FROM collections WHERE collection_id = $1 FOR UPDATE", made)
            writing = group.create_task(
                client.put(
                    f"{system.api}/projects/p1/collections/{made}",
                    headers={"User-ID": "owner"},
                    json={"description": "written at the last moment"},
                )
            )
            while not await projects.fetchval(
                "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock'"
            ):
                await asyncio.sleep(0.01)
            ending = group.create_task(asyncio.to_thread(system.composed, "stop", "api", "worker"))
            while "Waiting for" not in await asyncio.to_thread(system.engine.said, "logs", api):
                await asyncio.sleep(0.05)
        answer = await writing
        await ending
    assert answer.is_success
    ended = [container for service in CONFINED for container in system.containers(service)]
    assert len(ended) == 1 + WORKERS
    assert [system.engine.inspect(each)["State"]["ExitCode"] for each in ended] == [0] * len(ended)
    system.composed("start", "api", "worker")
    await drained(projects)
    (row,) = await target_rows(projects, made)
    assert row["research_context"] == "written at the last moment"
    assert await drift(projects) == []


def run_once(system: System, *words: str) -> CompletedProcess[str]:
    """Run a command as the documentation does: in a container of the worker's kind, which is removed."""
    return system.compose("run", "--rm", "-T", "worker", *words)
