import json
import sys
from importlib.metadata import distribution
from pathlib import Path

import pytest

from deploy import dependencies
from deploy.dependencies import (
    ALL,
    BAD,
    GOOD,
    ROOT,
    UNKNOWN,
    differences_of,
    installation_problems,
    main,
    read_lock,
    wanted_here,
)

HASH = "--hash=sha256:" + "0" * 64
LOCKED = wanted_here(read_lock(ROOT / ALL)[0])


def test_what_is_locked_is_pinned_hashed_installed_and_licensed() -> None:
    wanted, problems = dependencies.offline_problems()
    assert problems == []
    assert {"fastapi", "asyncpg", "arq"} <= wanted.keys()


@pytest.mark.parametrize(
    "line",
    [
        f"alembic>=1.20 {HASH}",
        f"alembic==1.* {HASH}",
        f"alembic {HASH}",
        "alembic==1.20.1",
        "alembic==1.20.1 --hash=md5:0123",
        f"alembic==1.20.1 {HASH} --global-option=x",
        f"alembic @ https://index.example/alembic.whl {HASH}",
        "--index-url https://index.example/simple",
        "--extra-index-url https://index.example/simple",
        "-e .",
        "https://index.example/alembic.whl",
    ],
)
def test_whatever_else_stands_in_a_lock_file_is_complained_of(line: str, tmp_path: Path) -> None:
    lock = tmp_path / "lock.txt"
    lock.write_text(f"arq==0.28.0 ; python_version < '4' \\\n    {HASH} \\\n    {HASH}\n")
    assert read_lock(lock)[1] == []
    lock.write_text(f"arq==0.28.0 \\\n    {HASH}\n{line}\n")
    assert len(read_lock(lock)[1]) >= 1


def test_what_is_shipped_untested_or_installed_otherwise_is_named(tmp_path: Path) -> None:
    one, other = tmp_path / "one.txt", tmp_path / "other.txt"
    one.write_text(f"arq==0.28.0 {HASH}\nrich==15.0 {HASH}\n")
    other.write_text(f"arq==0.27.0 {HASH}\nrich==15.0 {HASH}\n")
    assert len(differences_of(read_lock(one)[0], read_lock(other)[0])) == 1
    installed = {"arq": "0.27.0", "pip": "1", "stray": "1"}
    assert [
        line.partition(":")[0] for line in installation_problems({"arq": "1", "rich": "15"}, installed)
    ] == [
        "arq",
        "rich",
        "stray",
    ]


def test_a_licence_that_nobody_allowed_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dependencies, "ALLOWED_LICENCES", dependencies.ALLOWED_LICENCES - {"MPL-2.0"})
    assert any("hypothesis: licence MPL-2.0" in problem for problem in dependencies.offline_problems()[1])


def test_what_may_only_be_started_as_a_program_is_neither_shipped_nor_imported() -> None:
    assert not dependencies.NOT_SHIPPED.keys() & read_lock(ROOT / dependencies.SHIPPED)[0].keys()
    for name in dependencies.PROGRAMS_ONLY:
        files = [Path(file) for file in distribution(name).files or []]
        assert not [file for file in files if file.suffix in {".py", ".so"}]


def package(name: str, version: str, *vulnerabilities: str) -> dict[str, object]:
    return {"name": name, "version": version, "vulns": [{"id": found} for found in vulnerabilities]}


def skipped(name: str, _version: str) -> dict[str, object]:
    return {"name": name, "skip_reason": "Dependency not found on PyPI and could not be audited"}


EVERYTHING = [package(*pinned) for pinned in LOCKED.items()]
ANSWERS = {
    "all, and nothing known": (EVERYTHING, GOOD),
    "all, and something known": ([*EVERYTHING[1:], package(*next(iter(LOCKED.items())), "CVE-1")], BAD),
    "all skipped, as pip-audit exits 0": ([skipped(*pinned) for pinned in LOCKED.items()], UNKNOWN),
    "one skipped": ([*EVERYTHING[1:], skipped(*next(iter(LOCKED.items())))], UNKNOWN),
    "another version of one": ([*EVERYTHING[1:], package(next(iter(LOCKED)), "0")], UNKNOWN),
    "none at all": ([], UNKNOWN),
    "a traceback": (None, UNKNOWN),
}


@pytest.mark.parametrize("answer", ANSWERS)
def test_green_means_that_every_package_was_looked_up(
    answer: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    packages, status = ANSWERS[answer]
    said = "Traceback" if packages is None else json.dumps({"dependencies": packages, "fixes": []})
    program = tmp_path / "pip-audit"
    program.write_text(f"#!{sys.executable}\nprint({said!r})\n")
    program.chmod(0o755)
    monkeypatch.setattr(sys, "argv", ["dependencies", "--pip-audit", str(program)])
    assert main() == status
    assert ("VULNERABILITIES NOT CHECKED" in capsys.readouterr().out) == (status == UNKNOWN)


def test_without_pip_audit_it_is_said_that_nothing_was_looked_up(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["dependencies"])
    assert main() == UNKNOWN
    assert f"NOT CHECKED for {len(LOCKED)} of {len(LOCKED)} packages" in capsys.readouterr().out
