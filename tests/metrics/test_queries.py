"""The dashboards' queries of the log, on the lines of a real run."""

from tests.deploy.logql import Entry, Query
from tests.deploy.test_observability import LOG_ALERTS, targets
from tests.metrics.run import Run


def test_each_query_of_the_dashboard_finds_lines_of_a_real_run(run: Run) -> None:
    entries = [Entry.of(line) for line in run.lines]
    now = max(entry.at for entry in entries)
    assert [title for title, query in targets("loki") if not Query(query).matches(entries, now)] == []


def test_of_the_log_alerts_only_the_one_for_the_poison_event_fires(run: Run) -> None:
    entries = [Entry.of(line) for line in run.lines]
    now = max(entry.at for entry in entries)
    firing = {rule["alert"] for rule in LOG_ALERTS if Query(rule["expr"]).vector(entries, now)}
    assert firing == {"CollectionSyncLogDeadLetters"}
