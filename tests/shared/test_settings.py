import os
from pathlib import Path

import pytest
from pydantic import SecretStr

from shared.settings import DatabaseSettings, Settings, SettingsError, load_settings

DATABASE, REDIS = "postgresql://h/d", "redis://127.0.0.1:6379"


@pytest.fixture(autouse=True)
def _complete(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DATABASE_URL", DATABASE)
    monkeypatch.setenv("REDIS_URL", REDIS)


@pytest.mark.parametrize("url", ["mysql://h/d", "sqlite:///x.db", "no url at all"])
def test_another_database_is_refused_without_showing_the_value(
    url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DATABASE_URL", url)
    with pytest.raises(SettingsError) as refused:
        load_settings(DatabaseSettings)
    assert "DATABASE_URL" in str(refused.value)
    assert url not in str(refused.value)


def test_every_missing_variable_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("DATABASE_URL")
    monkeypatch.setenv("REDIS_URL", "")
    with pytest.raises(SettingsError, match=r"DATABASE_URL: .*\nREDIS_URL: "):
        load_settings(Settings)


def test_where_a_trial_runs_the_complaint_names_the_file_to_read(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.delenv("DATABASE_URL")
    monkeypatch.chdir(tmp_path)
    file = tmp_path / ".local" / "env"
    monkeypatch.setattr("shared.settings.TRIAL", file)
    with pytest.raises(SettingsError, match=r"^DATABASE_URL: is not set: .* with `make run`\.$"):
        load_settings(DatabaseSettings)
    file.parent.mkdir()
    file.touch()
    with pytest.raises(SettingsError, match=r"^DATABASE_URL: is not set: .* `\. \.local/env` first\.$"):
        load_settings(DatabaseSettings)
    monkeypatch.chdir(file.parent)
    with pytest.raises(SettingsError, match=f"`. {file}` first"):
        load_settings(DatabaseSettings)


def test_secrets_do_not_show_in_the_settings_text() -> None:
    settings = Settings(
        database_url=SecretStr("postgres://u:canary@h/d"),
        redis_url=SecretStr("redis://:canary@h"),
        gateway_token=SecretStr("canary"),
    )
    assert "canary" not in repr(settings)


def test_blanks_and_line_breaks_around_a_value_do_not_belong_to_it(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    values = {
        "DATABASE_URL": DATABASE,
        "REDIS_URL": REDIS,
        "GATEWAY_TOKEN": "a token",
        "ADMIN_TOKEN": "another",
        "LOG_FILE": str(tmp_path / "log"),
        "READ_ONLY_MODE": "true",
        "WORKER_METRICS_PORT": "9464",
        "WORKER_METRICS_HOST": "::1",
    }
    for name, value in values.items():
        monkeypatch.setenv(name, f" \t{value}\r\n")
    settings = load_settings(Settings)
    assert settings.database_url.get_secret_value() == DATABASE
    assert settings.redis_url.get_secret_value() == REDIS
    assert settings.gateway_token == SecretStr("a token")
    assert settings.admin_token == SecretStr("another")
    assert settings.log_file == tmp_path / "log"
    assert settings.read_only_mode is True
    assert (settings.worker_metrics_host, settings.worker_metrics_port) == ("::1", 9464)


def test_a_token_that_is_nothing_but_blanks_opens_no_door(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GATEWAY_TOKEN", "")
    assert load_settings(Settings).gateway_token is None
    for blanks in (" ", "\n", "\u00a0"):
        monkeypatch.setenv("GATEWAY_TOKEN", blanks)
        with pytest.raises(SettingsError, match=r"^GATEWAY_TOKEN: holds nothing but blanks"):
            load_settings(Settings)


@pytest.mark.parametrize("variable", ["GATEWAY_TOKEN", "ADMIN_TOKEN"])
@pytest.mark.parametrize(
    "token", ["one\ntwo", "a\tb", "a\x7fb", "a\x85b", "Schlüssel→", os.fsdecode(b"\xff")]
)
def test_a_token_that_no_header_carries_is_refused(
    variable: str, token: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(variable, token)
    with pytest.raises(SettingsError, match=rf"^{variable}: holds a character that no header carries"):
        load_settings(Settings)


def test_a_log_file_that_cannot_be_written_is_refused_with_its_path_and_the_reason(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    file = tmp_path / "file"
    file.touch()
    reasons = {
        tmp_path: "Is a directory",
        tmp_path / "nowhere" / "log": "No such file or directory",
        file / "log": "Not a directory",
        tmp_path / ("x" * 300): "File name too long",
    }
    for path, reason in reasons.items():
        monkeypatch.setenv("LOG_FILE", str(path))
        with pytest.raises(SettingsError) as refused:
            load_settings(Settings)
        assert str(refused.value) == f"LOG_FILE: {path} cannot be written: {reason}."


def test_a_log_file_may_be_what_nobody_reads_yet(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    monkeypatch.setenv("LOG_FILE", str(tmp_path / "pipe"))
    assert load_settings(Settings).log_file == tmp_path / "pipe"


def test_values_that_are_given_count_instead_of_the_environments(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DATABASE_URL", "nonsense")
    assert load_settings(Settings, database_url=DATABASE).database_url == SecretStr(DATABASE)
