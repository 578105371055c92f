"""What no process can use is refused by all alike, before anything starts: by a sentence, and with 2."""

import os
import sys
from collections.abc import Callable, Mapping
from contextlib import nullcontext
from pathlib import Path

import pytest

from shared.process import late_imports
from shared.settings import DatabaseSettings, SettingsError
from shared.tracing import require_exporter
from tests.forked import run
from tests.processes import HANG_SECONDS, environment
from tests.startup.processes import Start, starts, unlisted

# Every piece of a value that is not to be shown holds this word.
SECRET = "canary"
COMPLETE = {"DATABASE_URL": "postgresql://u:canary@127.0.0.1:1/d", "REDIS_URL": "redis://:canary@127.0.0.1:1"}
BLANKS = (" ", "\t\r\n")
OF_ANY_URL = (
    "canary",
    "http://u:canary@h/0",
    "{}:/u:canary@h/0",
    "{}://u:p/canary@h:1/0",
    "{}://u:p:canary",
    "{}://u:canary@h:70000/0",
    "{}://u:p@h:canary/0",
    "{}://u:canary@h:/0",
    "{}://u:canary@h/0?x_canary=1@",
    "{}://u:can\nary@h/0",
    "{}://u:canary@h/0?nonsense=canary",
)
WRONG: Mapping[str, tuple[str, ...]] = {
    "DATABASE_URL": (
        *(url.format("postgresql") for url in OF_ANY_URL),
        "postgresql://u:p@canary:w0rd@h:5432/d",
        "postgresql://u:canary@a:5432,:5432/d",
        "postgresql://u:canary@a:1,b:2/d?target_session_attrs=standby",
        "postgresql://u:canary@h/d?channel_binding=require",
        "postgresql://u:canary@h/d?sslmode=canary",
        "postgresql://u:canary@h/d?sslmode=verify-full&sslrootcert=/canary",
        "postgresql://u:canary@h/d?connect_timeout=canary",
        "postgresql://u:canary@h/d?service=canary",
    ),
    "REDIS_URL": (*(url.format("redis") for url in OF_ANY_URL), "redis://a:1,canary:2", "redis://h/canary"),
    "DATABASE_POOLER": ("canary",),
    "LOG_FILE": ("/", "/nowhere/at/all.log", "/dev/null/log"),
    "READ_ONLY_MODE": ("canary",),
    "GATEWAY_TOKEN": ("can\nary", "can\x1bary", "canary→"),
    "ADMIN_TOKEN": ("can\nary", "canary\x7f.", "canary→"),
    "DEAD_LETTER_RETENTION_DAYS": ("canary", "0", "1.5", "99999999999999999999"),
    "SHADOW_SHARE": ("canary", "-0.1", "1.1", "nan", "inf"),
    "PHASE_WRITERS_SECONDS": ("canary", "-1", "nan", "inf", "1e300"),
    "PHASE_IN_SYNC_SECONDS": ("canary", "-1", "nan", "inf", "1e300"),
    "PHASE_LISTS_COMPARED": ("canary", "-1", "1.5"),
    "WORKER_METRICS_PORT": ("canary", "0", "70000", "-1"),
    "WORKER_METRICS_HOST": (),
}
STARTS = starts()


def test_every_command_is_held_against_the_table() -> None:
    assert unlisted() == set()


def test_every_setting_is_in_the_table() -> None:
    assert {name for start, _ in STARTS.values() for name in variables(start)} == WRONG.keys()


def variables(start: Start) -> dict[str, bool]:
    """Return the variables that it reads, and whether it needs them."""
    fields = start.reads.model_fields if start.reads else {}
    return {name.upper(): field.is_required() for name, field in fields.items()}


def cases(start: Start) -> list[tuple[str, str | None]]:
    """List variables, each with a value that is wrong, or with None where it is not set."""
    found: list[tuple[str, str | None]] = []
    for name, is_required in variables(start).items():
        found += [(name, value) for value in (*WRONG[name], *BLANKS)]
        if is_required and name not in start.given:
            found += [(name, None), (name, "")]
    return found


@pytest.mark.parametrize("name", STARTS)
def test_what_no_process_can_use_is_refused_and_nothing_of_it_shown(
    name: str, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    start, do = STARTS[name]
    assert bool(cases(start)) is (start.reads is not None)
    monkeypatch.setattr(sys, "argv", sys.argv)
    monkeypatch.setattr(late_imports, "late_imports", nullcontext)  # it would freeze what tests have left
    monkeypatch.setenv("HOME", str(tmp_path))
    for variable in {*os.environ} & {*WRONG}:
        monkeypatch.delenv(variable)
    for variable, value in cases(start):
        with monkeypatch.context() as patch:
            for each, right in COMPLETE.items():
                patch.setenv(each, right)
            if value is None:
                patch.delenv(variable)
            else:
                patch.setenv(variable, value)
            status = status_of(do)
        output = "".join(capfd.readouterr())
        case = (variable, value, output)
        assert status == 2, case
        assert output.startswith(f"{variable}: "), case
        assert output.endswith(".\n"), case
        assert output.count("\n") == 1, case
        assert SECRET not in output, case
        assert "w0rd" not in output, case


def status_of(do: Callable[[], object]) -> object:
    """Do it and return the exit status, or what ended it otherwise; None where nothing did."""
    try:
        do()
    except SystemExit as ended:
        return ended.code
    except Exception as error:  # noqa: BLE001 - a traceback, for who starts the process
        return error
    return None


def test_whoever_reads_no_variable_minds_none(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    for name, (start, do) in STARTS.items():
        if start.reads is None:
            monkeypatch.setattr(sys, "argv", sys.argv)
            monkeypatch.setenv("DATABASE_URL", "nonsense")
            status_of(do)
            assert "DATABASE_URL" not in "".join(capfd.readouterr()), name


@pytest.mark.parametrize(
    "words",
    [
        ["-m", "uvicorn", "api.main:app", "--port", "0"],
        ["-m", "arq", "worker.main.WorkerSettings"],
        ["-m", "worker"],
        ["-m", "alembic", "upgrade", "head"],
    ],
    ids=" ".join,
)
def test_so_do_the_processes_themselves(words: list[str]) -> None:
    env = environment("postgresql://u:p@canary:w0rd@h:5432/d", "redis://127.0.0.1:1")
    ended = run(words, env, timeout=HANG_SECONDS)
    assert ended.returncode == 2
    assert ended.stdout == ""
    assert ended.stderr.startswith("DATABASE_URL: is not a URL such as ")
    assert ended.stderr.count("\n") == 1
    assert "w0rd" not in ended.stderr
    assert SECRET not in ended.stderr


@pytest.mark.parametrize("variable", ["OTEL_BSP_SCHEDULE_DELAY", "OTEL_SPAN_ATTRIBUTE_COUNT_LIMIT"])
@pytest.mark.parametrize("value", ["canary", "-1", "1.5"])
def test_a_number_that_opentelemetry_would_choke_on_is_refused_where_traces_are_on(
    variable: str, value: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(variable, value)
    require_exporter()
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:1")
    with pytest.raises(
        SettingsError, match=rf"^{variable}: is no number that OpenTelemetry takes"
    ) as refused:
        require_exporter()
    assert SECRET not in str(refused.value)
    monkeypatch.setenv(variable, " 5000\n")
    require_exporter()


def test_the_table_is_of_settings() -> None:
    assert all(
        start.reads is None or issubclass(start.reads, DatabaseSettings) for start, _ in STARTS.values()
    )
