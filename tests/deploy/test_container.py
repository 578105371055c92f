"""Dockerfile and compose file as they read, for where no engine is; `tests/image` builds and starts them."""

import re
import tomllib
from pathlib import Path

import pytest
import yaml  # type: ignore[import-untyped]

from tests.deploy.dockerfile import Stage, context_copies, read_stages
from tests.forked import ROOT

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
