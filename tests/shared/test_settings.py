import pytest
from pydantic import SecretStr

from shared.settings import DatabaseSettings, Settings, SettingsError, load_settings

REDIS = SecretStr("redis://127.0.0.1:6379")


@pytest.mark.parametrize(
    ("given", "used"),
    [
        ("postgres://u:p@h:5/d", "postgresql+asyncpg://u:p@h:5/d"),
        ("postgresql://u:p%40x@h/d", "postgresql+asyncpg://u:p%40x@h/d"),
        ("postgresql+asyncpg://h/d", "postgresql+asyncpg://h/d"),
        ("postgres://h/d?sslmode=require", "postgresql+asyncpg://h/d?ssl=require"),
    ],
)
def test_any_form_of_a_postgresql_url_becomes_the_one_asyncpg_takes(given: str, used: str) -> None:
    settings = Settings(database_url=SecretStr(given), redis_url=REDIS)
    assert settings.database_url.get_secret_value() == used


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
    monkeypatch.delenv("DATABASE_URL", raising=False)
    monkeypatch.setenv("REDIS_URL", "")
    with pytest.raises(SettingsError, match=r"DATABASE_URL: .*\n.*REDIS_URL: "):
        load_settings(Settings)


def test_secrets_do_not_show_in_the_settings_text() -> None:
    settings = Settings(
        database_url=SecretStr("postgres://u:canary@h/d"),
        redis_url=SecretStr("redis://:canary@h"),
        gateway_token=SecretStr("canary"),
    )
    assert "canary" not in repr(settings)


def test_a_log_file_in_no_directory_is_refused_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DATABASE_URL", "postgresql://h/d")
    monkeypatch.setenv("REDIS_URL", "redis://h")
    monkeypatch.setenv("LOG_FILE", "/nowhere/at/all.log")
    with pytest.raises(SettingsError, match=r"LOG_FILE: .*directory that does not exist"):
        load_settings(Settings)
