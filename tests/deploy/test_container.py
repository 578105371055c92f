"""The image, as far as it can be shown without a container engine.

What it copies, who it runs as, and that all of it works on a root that nobody can write to.
"""

import asyncio
import os
import re
import shlex
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest
import yaml  # type: ignore[import-untyped]

from tests.databases import Databases
from tests.processes import ROOT, environment, free_port, running

DOCKERFILE = (ROOT / "Dockerfile").read_text(encoding="utf-8")
COMPOSE = yaml.safe_load((ROOT / "docker-compose.yml").read_text(encoding="utf-8"))
CONTAINED = ROOT / "tests" / "deploy" / "contained.py"
PYTHON = str(Path(sys.prefix).resolve() / "bin" / "python")
USER = 10_001
OURS = ("migrate", "api", "worker")
PROBE = """
import os, sys
for directory, _, _ in os.walk("/"):
    if directory.startswith("/proc/"):
        continue
    try:
        os.close(os.open(os.path.join(directory, "probe"), os.O_CREAT | os.O_WRONLY))
    except OSError as error:
        print(error.strerror)
    else:
        print("written", directory)
"""


def copies() -> list[tuple[list[str], str]]:
    """List the sources and the destination of each COPY from the checkout."""
    lines = re.findall(r"^COPY ((?!--from).+)$", DOCKERFILE, re.MULTILINE)
    return [(words[:-1], words[-1]) for words in (line.split() for line in lines)]


def sources() -> set[str]:
    return {source for names, _ in copies() for source in names}


def test_the_image_gets_what_the_context_lets_through_and_nothing_else() -> None:
    ignored = (ROOT / ".dockerignore").read_text(encoding="utf-8").split()
    assert ignored[0] == "*"
    assert {line.removeprefix("!") for line in ignored if line.startswith("!")} == sources()


def test_no_secret_and_no_work_of_the_build_stays_in_the_image() -> None:
    assert not re.search(r"^(ARG|ADD)\b|TOKEN|PASSWORD|DATABASE_URL|REDIS_URL", DOCKERFILE, re.MULTILINE)
    final = DOCKERFILE.rpartition("\nFROM ")[2]
    assert re.findall(r"^COPY (.+)$", final, re.MULTILINE) == [
        "--from=install /venv /venv",
        "--from=install /app /app",
    ]
    assert not re.search(r"\b(pip|apt-get|curl|chown|chmod)\b", final)


def test_the_image_and_its_services_are_a_numbered_user_without_rights() -> None:
    assert re.findall(r"^USER (.+)$", DOCKERFILE, re.MULTILINE) == [f"{USER}:{USER}"]
    for name in OURS:
        service = COMPOSE["services"][name]
        assert (service["user"], service["read_only"], service["cap_drop"]) == (
            f"{USER}:{USER}",
            True,
            ["ALL"],
        )
        assert service["security_opt"] == ["no-new-privileges:true"]
        assert service["pids_limit"] <= 100
        assert not {"privileged", "tmpfs", "cap_add", "network_mode"} & service.keys()
        log_only = [] if name == "migrate" else ["logs:/var/log/collection-sync"]
        assert service.get("volumes", []) == log_only


@dataclass(frozen=True)
class Image:
    """What a container of the image sees, and the words that run a command in it."""

    root: Path
    app: Path

    def words(self, *command: str) -> list[str]:
        return [str(CONTAINED), str(self.root), str(self.app), PYTHON, *command]


@pytest.fixture
def image() -> Iterator[Image]:
    if os.geteuid() != 0:
        pytest.skip("only root can make a read-only root and become another user")
    attempt = ["unshare", "-m", "true"]
    if subprocess.run(attempt, capture_output=True, check=False).returncode != 0:
        pytest.skip("this system allows no mount namespace")
    with tempfile.TemporaryDirectory(prefix="image ") as name:
        app = Path(name) / "app"
        for names, destination in copies():
            for source in names:
                target = app / destination / (source if destination.endswith("/") else "")
                target.parent.mkdir(parents=True, exist_ok=True)
                if (ROOT / source).is_dir():
                    unused = shutil.ignore_patterns("__pycache__")
                    shutil.copytree(ROOT / source, target, ignore=unused, dirs_exist_ok=True)
                elif source != "requirements.txt":
                    shutil.copy(ROOT / source, target)
        readable = ["chmod", "-R", "u=rwX,go=rX", name]
        subprocess.run(readable, check=True)
        (Path(name) / "root").mkdir()
        yield Image(Path(name) / "root", app)


def image_environment(database_url: str, redis_url: str) -> dict[str, str]:
    [set_by_image] = re.findall(r"^ENV (.+)$", DOCKERFILE, re.MULTILINE)
    variables = dict(word.split("=", 1) for word in shlex.split(set_by_image))
    inside = environment(database_url, redis_url, HOME="/nonexistent")
    return {**inside, **variables, "PATH": "/usr/sbin:/usr/bin:/sbin:/bin"}


def status_of(pid: int) -> dict[str, str]:
    lines = Path(f"/proc/{pid}/status").read_text(encoding="utf-8").splitlines()
    return dict(line.split(":\t", 1) for line in lines if ":\t" in line)


@pytest.mark.slow
async def test_all_of_it_runs_on_a_read_only_root_as_a_user_without_a_name_or_a_right(
    image: Image, databases: Databases, redis_url: str
) -> None:
    """Migrations, API, worker, both health checks and the commands, as compose and operators start them."""
    with databases.clone("template0") as database_url:
        env = image_environment(database_url, redis_url)

        async def succeeds(*command: str) -> str:
            with running(image.words(*command), env) as process:
                assert await process.exit_code(30) == 0, process.output
            return process.output

        probed = await succeeds("-c", PROBE)
        assert set(probed.splitlines()) == {os.strerror(30)}  # EROFS, in every directory there is
        await succeeds("-m", *COMPOSE["services"]["migrate"]["command"])
        port = str(free_port())
        uvicorn = ["uvicorn", "api.main:app", "--host", "127.0.0.1", "--port", port, "--no-access-log"]
        with (
            running(image.words("-m", *uvicorn), env) as api,
            running(image.words("-m", "worker"), env) as worker,
        ):
            await worker.wait_for("worker_started")
            _, python, dash_c, check = COMPOSE["services"]["api"]["healthcheck"]["test"]
            assert (python, dash_c) == ("python", "-c")
            async with asyncio.timeout(20), httpx.AsyncClient() as client:
                while not await answers(client, port):
                    await asyncio.sleep(0.05)
            await asyncio.gather(
                succeeds("-c", check.replace("8000", port)),
                succeeds(*COMPOSE["services"]["worker"]["healthcheck"]["test"][2:]),
                succeeds("-m", "worker.backfill", "--wait"),
                succeeds("migrations/phase1_backfill_project_collections.py", "--dry-run"),
            )
            for process in (api, worker):
                status = status_of(process.pid)
                assert status["Uid"].split() == status["Gid"].split() == [str(USER)] * 4
                assert (int(status["CapEff"], 16), int(status["CapBnd"], 16)) == (0, 0)
                assert status["NoNewPrivs"] == "1"


async def answers(client: httpx.AsyncClient, port: str) -> bool:
    try:
        return (await client.get(f"http://127.0.0.1:{port}/healthz")).is_success
    except httpx.TransportError:
        return False
