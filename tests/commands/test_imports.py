"""A command that is only asked what it can do, or asked wrongly, answers before it imports what works."""

import subprocess
import sys
from pathlib import Path

import pytest

from shared.settings import CommandSettings, Settings, TurnSettings
from shared.variables import COMMANDS, SETTINGS, TURNS

ROOT = Path(__file__).parents[2]
SCRIPTS = [
    path.relative_to(ROOT)
    for directory in ("worker", "deploy/local", "migrations")
    for path in sorted((ROOT / directory).rglob("*.py"))
    if '\nif __name__ == "__main__":\n' in path.read_text(encoding="utf-8")
]
HEAVY = {
    "alembic", "api", "arq", "asyncio", "asyncpg", "fastapi", "httpx", "opentelemetry", "orjson", "plotly",
    "prometheus_client", "pydantic", "pydantic_settings", "redis", "rich", "sqlalchemy", "structlog",
    "uvicorn", "uvloop",
}  # fmt: skip
# 71 to 84 with Python 3.11, to 119 with 3.14, the interpreter's own among them; with what works, 760.
MOST_MODULES = 130


def test_the_commands_are_found() -> None:
    names = {path.as_posix() for path in SCRIPTS}
    assert {"worker/__main__.py", "worker/backfill/__main__.py", "deploy/local/__main__.py"} < names
    assert "migrations/phase1_backfill_project_collections.py" in names


@pytest.mark.parametrize(("word", "status"), [("--help", 0), ("--no-such-option", 2)])
@pytest.mark.parametrize("script", SCRIPTS, ids=str)
def test_help_and_wrong_usage_import_nothing_heavy(script: Path, word: str, status: int) -> None:
    module = ".".join(script.parent.parts)
    words = ["-m", module] if script.name == "__main__.py" else [str(script)]
    ran = subprocess.run(
        [sys.executable, "-X", "importtime", *words, word],
        cwd=ROOT,
        env={},
        capture_output=True,
        text=True,
        check=False,
    )
    lines = [line for line in ran.stderr.splitlines() if line.startswith("import time:")]
    imported = [line.rpartition("|")[2].strip() for line in lines]
    assert ran.returncode == status
    assert f"usage: python {' '.join(words)}" in ran.stdout + ran.stderr
    assert {name.partition(".")[0] for name in imported} & HEAVY == set()
    assert "argparse" in imported
    assert len(imported) < MOST_MODULES


def test_the_help_speaks_of_the_variables_that_are_read() -> None:
    for table, settings in ((COMMANDS, CommandSettings), (SETTINGS, Settings), (TURNS, TurnSettings)):
        assert table == {name: field.description for name, field in settings.model_fields.items()}
