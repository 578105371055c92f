"""Thousands of requests that schemathesis makes up from the OpenAPI document, against a real process.

They are the same in every run. To send a failing one again, start an API with the tokens of TOKENS on a
database with the recorded seed, and paste the curl line of the failure with that API's address in it.
"""

import asyncio
import json
from collections import Counter
from typing import Any

import asyncpg
import pytest

from api.main import create_app
from shared.settings import Settings
from tests.api.clients import OWNER, P1
from tests.api.unhurried import running_unhurried
from tests.fuzz.fuzzing import VERIFY, Report, fuzz
from tests.processes import environment

TOKENS = {"GATEWAY_TOKEN": "gateway", "ADMIN_TOKEN": "admin"}
FEW = 3
LEAST_CASES = {FEW: 1_000, 30: 2_000}  # by how many are made up of each kind
COLLECTIONS = "/projects/{project_id}/collections"
COLLECTION = f"{COLLECTIONS}/{{collection_id}}"

NO_SERVER_ERRORS = {"not_a_server_error": {"enabled": False}}


def config_of(port: int, examples: int) -> dict[str, Any]:
    """Return how schemathesis goes about an API on this port, and how many requests of a kind it makes up."""
    return {
        "base-url": f"http://127.0.0.1:{port}",
        "seed": 20251002,
        "workers": 1,
        "continue-on-failure": True,
        "headers": {"X-Gateway-Token": "gateway", "X-Admin-Token": "admin"},
        "generation": {
            "deterministic": True,
            "max-examples": examples,
            "database": "none",
            "with-security-parameters": False,  # tests/api/test_credentials.py tries them all
        },
        "output": {"sanitization": {"enabled": False}},  # the curl lines hold the tokens
        "checks": {
            "ignored_auth": {"enabled": False},  # the headers above stay, so a wrong bearer does no harm
            "allow_header_conformance": {"enabled": False},  # of a collection: PUT alone, as recorded
        },
        "operations": [{"include-name": f"GET {VERIFY}", "checks": NO_SERVER_ERRORS}],
    }


# Everything of a request is made up; then again with the owner's project and id, to get past the door.
ANYBODY: dict[str, Any] = {}
OWNER_OF_P1 = {"parameters": {"path.project_id": P1, "header.User-ID": OWNER["User-ID"]}}


def assert_reached(answers: Counter[tuple[str, int]]) -> None:
    """Each operation has done its work, and refused, several times."""
    for operation, status in [
        (f"GET {COLLECTIONS}", 200),
        (f"POST {COLLECTIONS}", 200),
        (f"POST {COLLECTIONS}", 422),
        (f"PUT {COLLECTION}", 200),
        (f"PUT {COLLECTION}", 404),
        (f"PUT {COLLECTION}", 422),
        (f"DELETE {COLLECTION}", 200),
        (f"DELETE {COLLECTION}", 404),
        (f"GET {COLLECTION}/sync", 200),
        (f"GET {VERIFY}", 202),
        (f"GET {VERIFY}", 422),
        ("POST /admin/backfill", 202),
        ("POST /admin/backfill", 409),
        ("POST /admin/backfill", 422),
        ("POST /admin/backfill/pause", 409),
        ("POST /admin/backfill/cancel", 200),
    ]:
        assert answers[operation, status] > 1, (operation, status, answers)


@pytest.mark.wide
@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("examples", [FEW, pytest.param(30, marks=pytest.mark.long)])
async def test_whatever_the_document_allows_or_forbids_is_answered_as_documented(
    seeded: asyncpg.Connection, database_url: str, redis_url: str, settings: Settings, examples: int
) -> None:
    document = create_app(settings).openapi()
    total = Report()
    async with running_unhurried(environment(database_url, redis_url, **TOKENS)) as (api, port):
        for who in (ANYBODY, OWNER_OF_P1):
            report = await asyncio.to_thread(fuzz, document, config_of(port, examples) | who)
            assert not report.failures, "\n\n".join(report.failures[:20])
            total.cases += report.cases
            total.answers += report.answers
        assert_reached(total.answers)
        assert api.process.poll() is None
        logged = [json.loads(line) for line in api.lines if line.startswith("{")]
    assert total.cases.total() >= LEAST_CASES[examples], total.cases
    assert min(total.cases[phase] for phase in ("examples", "coverage", "fuzzing", "stateful")) > 0
    trouble = [line for line in logged if line["level"] != "info" and line.get("logger") != "uvicorn.error"]
    assert not trouble  # uvicorn tells of requests that are not HTTP
    print(dict(total.cases))  # noqa: T201 - for `pytest -s`
    assert await seeded.fetchval("SELECT count(*) FROM outbox_events") > 100
