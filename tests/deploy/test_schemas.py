"""The Dockerfile and the compose file, judged by what others know of their formats."""

import json
import subprocess
import sys
from collections.abc import Callable
from importlib.resources import files
from pathlib import Path
from typing import Any

import jsonschema  # type: ignore[import-untyped]
import pytest
import yaml  # type: ignore[import-untyped]

from tests.forked import ROOT

COMPOSE_SCHEMA = json.loads(
    files("check_jsonschema").joinpath("builtin_schemas/vendor/compose-spec.json").read_text(encoding="utf-8")
)
HADOLINT = Path(sys.executable).parent / "hadolint"
Service = dict[str, Any]


def compose() -> dict[str, Any]:
    read: dict[str, Any] = yaml.safe_load((ROOT / "docker-compose.yml").read_text(encoding="utf-8"))
    return read


def violations(document: dict[str, Any]) -> list[str]:
    validator = jsonschema.validators.validator_for(COMPOSE_SCHEMA)(COMPOSE_SCHEMA)
    return [error.message for error in validator.iter_errors(document)]


def test_the_compose_file_keeps_to_the_compose_specification() -> None:
    assert violations(compose()) == []


@pytest.mark.parametrize(
    "harm",
    [
        lambda service: service.update(read_onyl=True),
        lambda service: service.update(stop_grace_period=15),
        lambda service: service["healthcheck"].update(start_perod="15s"),
        lambda service: service["depends_on"]["redis"].update(condition="healthy"),
        lambda service: service.update(cap_drop="ALL"),
    ],
    ids=["unknown key", "no unit", "unknown check", "unknown condition", "no list"],
)
def test_a_mistake_in_a_service_is_seen(harm: Callable[[Service], None]) -> None:
    harmed = compose()
    harm(harmed["services"]["worker"])
    assert violations(harmed) != []


def lint(dockerfile: str) -> set[str]:
    """Return the codes of hadolint's complaints, of all severities."""
    done = subprocess.run(
        [HADOLINT, "--no-color", "--format", "json", "-"],
        input=dockerfile,
        cwd="/",
        env={"HOME": "/nonexistent"},  # where somebody's own rules could lie
        capture_output=True,
        text=True,
        check=False,
    )
    assert not done.stderr
    return {complaint["code"] for complaint in json.loads(done.stdout)}


def test_hadolint_has_nothing_to_say_about_the_dockerfile() -> None:
    text = (ROOT / "Dockerfile").read_text(encoding="utf-8")
    assert "hadolint ignore" not in text
    assert lint(text) == set()


@pytest.mark.parametrize(
    ("right", "wrong", "code"),
    [
        ("FROM python:3.13.16-slim-trixie\n", "FROM python\n", "DL3006"),
        ("USER 10001:10001", "USER root", "DL3002"),
        ('CMD ["sh", "-c", "exec', 'CMD sh -c "exec', "DL3025"),
        ("WORKDIR /build", "WORKDIR build", "DL3000"),
        ("&& useradd", "&& sudo useradd", "DL3004"),
    ],
)
def test_hadolint_sees_a_mistake_in_the_dockerfile(right: str, wrong: str, code: str) -> None:
    text = (ROOT / "Dockerfile").read_text(encoding="utf-8")
    assert right in text
    assert code in lint(text.replace(right, wrong))
