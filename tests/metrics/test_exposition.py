"""What real processes expose after a scripted run."""

import re

import pytest

from tests.metrics.page import documented
from tests.metrics.promtool import promtool
from tests.metrics.run import Exposition, Run

pytestmark = pytest.mark.xdist_group("exposition")  # one run of them for all
PROCESSES = ("worker", "api")
SECTION = {"worker": "The worker", "api": "The API"}


def exposed_by(run: Run, process: str) -> Exposition:
    return {"worker": run.worker, "api": run.api}[process]


@pytest.mark.parametrize("process", PROCESSES)
def test_promtool_finds_nothing_to_complain_about(run: Run, process: str) -> None:
    assert promtool("check", "metrics", text=exposed_by(run, process).text) == ""


@pytest.mark.parametrize("process", PROCESSES)
def test_each_metric_is_on_the_page_with_its_type_in_the_order_of_the_page(run: Run, process: str) -> None:
    ours = re.findall(r"^# TYPE (\w+) (\w+)$", exposed_by(run, process).text, re.MULTILINE)
    page = [(metric.name, metric.type) for metric in documented(SECTION[process], "Both")]
    count = len(documented(SECTION[process]))
    assert ours[:count] == page[:count]
    assert sorted(ours[count:]) == sorted(page[count:])


@pytest.mark.parametrize("process", PROCESSES)
def test_each_series_has_the_labels_that_the_page_says(run: Run, process: str) -> None:
    page = set().union(*(metric.series() for metric in documented(SECTION[process], "Both")))
    assert {(name, frozenset(labels)) for name, labels in exposed_by(run, process).series()} == page


def test_the_oldest_pending_age_comes_first(run: Run) -> None:
    assert run.worker.text.startswith("# HELP collection_sync_oldest_pending_seconds ")
    assert documented("The worker")[0].name == "collection_sync_oldest_pending_seconds"


@pytest.mark.parametrize("process", PROCESSES)
def test_no_label_holds_an_id(run: Run, process: str) -> None:
    values = {
        value
        for family in exposed_by(run, process).families.values()
        for sample in family.samples
        for label, value in sample.labels.items()
        if label != "le"
    }
    assert len(run.ids) > 20
    assert [(value, known) for value in values for known in run.ids if known in value] == []
    assert max(map(len, values)) < 60


def test_the_worker_counted_what_the_run_did(run: Run) -> None:
    value = run.worker.value
    settled = {line["event_id"]: line for line in run.lines if line["event"] == "event_settled"}
    of_users = [line for line in settled.values() if line["source"] == "api"]
    for outcome in ("applied", "stale", "conflated", "obsolete", "dead"):
        expected = sum(line["outcome"] == outcome for line in of_users)
        counted = value("collection_sync_events_settled_total", lane="live", outcome=outcome)
        assert counted == expected, outcome
    assert len(of_users) == 5
    assert value("collection_sync_events_settled_total", lane="live", outcome="dead") == 1
    assert value("collection_sync_events_settled_total", lane="backfill", outcome="applied") == 1
    assert value("collection_sync_event_lag_seconds_count", lane="live") == 5
    longest = max(line["lag_ms"] for line in of_users) / 1000
    total = sum(line["lag_ms"] for line in of_users) / 1000
    assert value("collection_sync_event_lag_seconds_sum", lane="live") == pytest.approx(total, abs=1e-4)
    assert longest < 600
    assert value("collection_sync_event_lag_seconds_bucket", lane="live", le="600.0") == 5
    batches = [line for line in run.lines if line["event"] == "batch_settled" and line["lane"] == "live"]
    assert value("collection_sync_batch_duration_seconds_count", lane="live") == len(batches)


def test_the_worker_shows_what_the_database_says(run: Run) -> None:
    value = run.worker.value
    beat = [line for line in run.lines if line["event"] == "worker_heartbeat"][-1]
    assert value("collection_sync_dead_letters_open") == beat["dead_letters"] == 1
    assert value("collection_sync_pending_events", lane="live") == beat["pending_live"] == 0
    assert (value("collection_sync_database_up"), value("collection_sync_redis_up")) == (1, 1)
    audit = [line for line in run.lines if line["event"] == "audit_finished"][-1]
    assert value("collection_sync_audit_verdict", verdict=audit["verdict"]) == 1
    for kind in ("compared", "missing", "mismatched", "orphaned", "pending"):
        assert value("collection_sync_audit_pairs", kind=kind) == audit[kind]
    backfill = next(line for line in run.lines if line["event"] == "backfill_finished")
    assert value("collection_sync_backfill_planned_rows") == backfill["planned"]
    for state in ("processed", "enqueued", "skipped"):
        assert value("collection_sync_backfill_rows", state=state) == backfill[state]
    assert value("collection_sync_backfill_status", status="finished") == 1


def test_the_api_counted_what_the_run_did(run: Run) -> None:
    value = run.api.value
    written = [line["event_type"] for line in run.lines if line["event"] == "collection_written"]
    for event_type in ("collection.created", "collection.updated", "collection.deleted"):
        counted = value("collection_sync_events_appended_total", event_type=event_type)
        assert counted == written.count(event_type) > 0
    one = "/projects/{project_id}/collections/{collection_id}"
    requests = "collection_sync_http_requests_total"
    assert value(requests, method="PUT", route=one, status="2xx") == 2
    assert value(requests, method="PUT", route=one, status="4xx") == 1
    assert value(requests, method="GET", route="other", status="4xx") == 1
    assert value(requests, method="other", route=one, status="4xx") == 1
    assert value("collection_sync_http_request_duration_seconds_count", method="PUT", route=one) == 3
    assert value("collection_sync_http_requests_in_flight") == 1
    assert value("collection_sync_doorbell_up") == 1
