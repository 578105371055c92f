"""One run of schemathesis over our OpenAPI document, and what came of it."""

import uuid
from collections import Counter
from dataclasses import dataclass, field
from typing import Any

import schemathesis
from schemathesis import Case, CheckContext, Config, HookContext
from schemathesis.core.transport import Response
from schemathesis.engine import events, from_schema
from schemathesis.engine.recorder import CheckNode

from api.idempotency import EXAMPLE, HEADER

Json = Any

VERIFY = "/admin/verify-phase1-migration"
# The check, and what its failure's text or the answer holds where the behaviour is meant.
MEANT = (
    ("negative_data_rejection", "auto_update: Incorrect type"),  # the legacy service's lax booleans
    ("negative_data_rejection", "since: Incorrect type"),  # a number is a Unix time
    ("negative_data_rejection", "until: Incorrect type"),
    ("negative_data_rejection", "before: Incorrect type"),
    ("positive_data_acceptance", "name_not_fit"),  # what is printable is more than a pattern can say
    ("positive_data_acceptance", "string_not_storable"),  # no schema can say what PostgreSQL cannot store
    ("positive_data_acceptance", '"value_error"'),  # nor which fields go together
    ("positive_data_acceptance", "This Idempotency-Key belongs to"),  # nor what came before
    ("positive_data_acceptance", '"lt":9223372036854775808'),  # which it compares as a float
    ("unsupported_method", '"int_parsing","loc":["path"'),  # a word where GET expects a number
)


@schemathesis.hook("before_call")
def wait_briefly(context: HookContext, case: Case[Json], kwargs: Json) -> None:  # noqa: ARG001 - their names
    """Let no verification wait for long: a valid time, or none, becomes a short one; others stay."""
    if case.path == VERIFY:
        try:
            waits = 0 <= float(case.query.get("wait_seconds", 20)) <= 60
        except (TypeError, ValueError):
            return
        if waits:
            case.query["wait_seconds"] = 0.05


@schemathesis.hook("before_call")
def have_a_key_of_its_own(context: HookContext, case: Case[Json], kwargs: Json) -> None:  # noqa: ARG001 - theirs
    """Put a new key in the place of the document's: with that, all creations but one would be refused."""
    if case.headers and case.headers.get(HEADER) == EXAMPLE:
        case.headers[HEADER] = str(uuid.uuid4())


@schemathesis.check
def only_a_missing_worker_is_a_fault(_context: CheckContext, response: Response, case: Case[Json]) -> None:
    """No 5xx, whatever is documented, but for a verification: here no worker carries it out."""
    if response.status_code >= 500:
        assert (case.path, response.status_code) == (VERIFY, 503), response.text
        assert response.json()["detail"].startswith("No worker carries out audit")


@dataclass
class Report:
    """Counts of requests by phase, and by operation and answer; failures with the request as curl."""

    cases: Counter[str] = field(default_factory=Counter)
    answers: Counter[tuple[str, int]] = field(default_factory=Counter)
    failures: list[str] = field(default_factory=list)

    def add(self, event: events.ScenarioFinished) -> None:
        """Take in the requests of one scenario."""
        recorder = event.recorder
        self.cases[event.phase.value] += len(recorder.interactions)
        for case_id, interaction in recorder.interactions.items():
            response = interaction.response
            if response is None:
                self.failures.append(f"{recorder.label}: no answer to {interaction.request.uri}")
                continue
            self.answers[recorder.cases[case_id].value.operation.label, response.status_code] += 1
            self.failures += [
                text for check in recorder.checks.get(case_id, []) if (text := problem(check, response.text))
            ]


def problem(check: CheckNode, answer: str) -> str | None:
    """Describe a failure that is none of those that are meant."""
    if check.failure_info is None:
        return None
    failure = f"{check.name}: {check.failure_info.failure}"
    if any(name == check.name and part in failure + answer for name, part in MEANT):
        return None
    return f"{failure}\n{check.failure_info.code_sample[:2_000]}\n{answer[:500]}"


def fuzz(document: Json, config: dict[str, Json]) -> Report:
    """Run each of schemathesis' phases, with the seed of the configuration."""
    schema = schemathesis.openapi.from_dict(document, config=Config.from_dict(config))
    report = Report()
    for event in from_schema(schema).execute():
        match event:
            case events.ScenarioFinished():
                report.add(event)
            case events.NonFatalError() | events.FatalError():
                report.failures.append(repr(event))
            case _:
                pass
    return report
