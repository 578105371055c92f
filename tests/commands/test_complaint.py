"""Whatever ends a process is told of in one sentence, of bounded length, and by its right name."""

import asyncio
import errno
import os
import socket

import asyncpg
import pytest

from shared.migration_state import MigrationRefusedError
from shared.postgres.pooler import PoolerError
from shared.process.complaint import complaint_about
from shared.settings import SettingsError
from worker.dashboard.command import as_asked_for


def of_the_system(number: int, name: str | None = None) -> OSError:
    return OSError(number, os.strerror(number), name)


@pytest.mark.parametrize(
    ("error", "said", "status"),
    [
        (SettingsError("DATABASE_URL: why"), "DATABASE_URL: why", 2),
        (PoolerError("the pooler"), "the pooler", 2),
        (MigrationRefusedError("3 events wait."), "3 events wait.", 1),
        (asyncpg.InvalidPasswordError("a secret"), "refuses the login (28P01)", 1),
        (asyncpg.InvalidCatalogNameError("a secret"), "no such database (3D000)", 1),
        (asyncpg.ReadOnlySQLTransactionError("a secret"), "takes no writes (25006)", 1),
        (asyncpg.UndefinedTableError("a secret"), "alembic upgrade head", 1),
        (asyncpg.AdminShutdownError("a secret"), "away or busy (57P01)", 1),
        (asyncpg.DataError("a secret"), "PostgreSQL refuses it (22000: data)", 1),
        (ConnectionRefusedError(), "away or busy (ConnectionRefusedError)", 1),
        (TimeoutError(), "away or busy (TimeoutError)", 1),
        (socket.gaierror(-2, "Name or service not known"), "The host in DATABASE_URL is not known", 1),
        (of_the_system(errno.EMFILE), "Too many open files", 1),
        (of_the_system(errno.EACCES, "/a/file"), "/a/file: Permission denied.", 1),
        (ValueError("a secret"), "This is a fault of ours: ValueError.", 1),
        (ExceptionGroup("", [ExceptionGroup("", [ConnectionResetError()])]), "ConnectionResetError", 1),
        (asyncio.QueueFull("a secret"), "This is a fault of ours: QueueFull.", 1),
    ],
    ids=lambda it: type(it).__name__ if isinstance(it, Exception) else "",
)
def test_each_error_is_told_by_its_right_name(error: Exception, said: str, status: int) -> None:
    sentence, found = complaint_about(error)
    assert found == status
    assert said in sentence
    assert "a secret" not in sentence
    assert len(sentence) < 500


def test_a_fault_of_ours_says_where() -> None:
    try:
        as_asked_for(None)  # type: ignore[arg-type]
    except AttributeError as error:
        sentence, _ = complaint_about(error)
    assert "AttributeError at worker/dashboard/command.py:" in sentence


@pytest.mark.parametrize(
    ("name", "asked"),
    [
        ("host", "host"), ("host:8443", "host"), ("::1", "[::1]"), ("[::1]", "[::1]"), ("[::1]:80", "[::1]"),
    ],
)  # fmt: skip
def test_a_host_is_known_with_its_port_and_without(name: str, asked: str) -> None:
    assert as_asked_for(name) == asked
