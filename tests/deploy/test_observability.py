"""Prometheus, Loki, Alloy and Grafana, as far as they can be shown without a container engine."""

import json
import os
import re
import subprocess
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
import yaml  # type: ignore[import-untyped]

from shared.log_contract import COMMON, CONTRACT
from tests.deploy.logql import Entry, Query, Range, UnknownLogQLError
from tests.deploy.sample_lines import sample_lines
from tests.metrics.page import documented
from tests.metrics.promql import names_and_labels
from tests.metrics.promtool import promtool
from tests.processes import ROOT

HERE = ROOT / "deploy" / "observability"
COMPOSE = yaml.safe_load((ROOT / "docker-compose.yml").read_text(encoding="utf-8"))["services"]
OBSERVERS = ("prometheus", "loki", "alloy", "grafana")
DASHBOARDS = {
    path.stem: json.loads(path.read_text()) for path in (HERE / "grafana/dashboards").glob("*.json")
}
ALERTS = yaml.safe_load((HERE / "alerts.yml").read_text())["groups"][0]["rules"]
LOG_ALERTS = yaml.safe_load((HERE / "loki-rules/fake/alerts.yml").read_text())["groups"][0]["rules"]
ALLOY = (HERE / "config.alloy").read_text(encoding="utf-8")
STREAM_LABELS = {"job", "process", "level"}
NOW = 1_800_000_000.0


def targets(datasource: str) -> list[tuple[str, str]]:
    """List the queries of the dashboards for this data source, each with its panel's title."""
    return [
        (f"{name}: {panel['title']}", target["expr"])
        for name, dashboard in DASHBOARDS.items()
        for panel in dashboard["panels"]
        for target in panel["targets"]
        if target["datasource"]["uid"] == datasource
    ]


def without_variables(expression: str) -> str:
    return re.sub(r"\[\$__\w+\]", "[1m]", expression)


def iso(at: float) -> str:
    return datetime.fromtimestamp(at, UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")


def entry(event: str, at: float, process: str = "worker", **fields: Any) -> Entry:  # noqa: ANN401
    """Take a sample of the event at that time, so many seconds from NOW, with these fields changed."""
    line = next(line for line in sample_lines(iso(NOW + at)) if line["event"] == event)
    assert fields.keys() <= line.keys()
    return Entry.of(line | {"process": process} | fields)


def test_promtool_accepts_the_configuration_and_the_rules() -> None:
    promtool("check", "config", str(HERE / "prometheus.yml"))
    promtool("check", "rules", str(HERE / "alerts.yml"))


def test_each_alert_fires_when_it_should_and_only_then() -> None:
    promtool("test", "rules", str(ROOT / "tests/deploy/alert_tests.yml"))


def test_each_alert_is_tried_both_ways() -> None:
    """Whoever adds an alert shows when it fires, and when something like it does not."""
    cases = yaml.safe_load((ROOT / "tests/deploy/alert_tests.yml").read_text())["tests"]
    shown = {
        (re.findall(r'alertname="(\w+)"', check["expr"])[0], bool(check["exp_samples"]))
        for case in cases
        for check in case["promql_expr_test"]
    }
    assert shown == {(rule["alert"], fires) for rule in ALERTS for fires in (True, False)}


def test_promtool_can_parse_each_query_of_the_dashboards(tmp_path: Path) -> None:
    queries = [without_variables(expression) for _, expression in targets("prometheus")]
    assert len(queries) > 20
    rules = [{"record": f"panel_{number}", "expr": query} for number, query in enumerate(queries)]
    file = tmp_path / "panels.yml"
    file.write_text(json.dumps({"groups": [{"name": "panels", "rules": rules}]}))
    promtool("check", "rules", str(file))


def test_each_metric_and_label_of_rules_and_dashboards_is_on_the_page() -> None:
    series = {
        name: labels
        for metric in documented("The worker", "The API", "Both")
        for name, labels in metric.series()
    }
    queries = [rule["expr"] for rule in ALERTS] + [expression for _, expression in targets("prometheus")]
    for query in queries:
        names, labels = names_and_labels(query)
        assert names - {"up"} <= series.keys(), query
        known = {"job", "instance"}.union(*(series.get(name, frozenset()) for name in names))
        assert labels <= known, query


def test_each_metric_of_ours_is_looked_at_by_some_panel() -> None:
    looked_at = set().union(*(names_and_labels(expression)[0] for _, expression in targets("prometheus")))
    for metric in documented("The worker", "The API"):
        assert {name for name, _ in metric.series()} & looked_at, metric.name


@pytest.mark.parametrize("rule", [*ALERTS, *LOG_ALERTS], ids=lambda rule: rule["alert"])
def test_each_alert_says_how_bad_it_is_what_it_means_and_what_to_run(rule: dict[str, Any]) -> None:
    assert rule["labels"]["severity"] in {"warning", "critical"}
    assert rule["annotations"]["summary"].endswith(".")
    assert re.search(r"`[^`]+`", rule["annotations"]["description"])
    for module in re.findall(r"`python -m (worker[\w.]*)", rule["annotations"]["description"]):
        path = ROOT / module.replace(".", "/") / "__main__.py"
        assert path.is_file(), module


def test_the_log_alerts_cover_the_same_conditions() -> None:
    metric = {rule["alert"].removeprefix("CollectionSync") for rule in ALERTS}
    logged = {rule["alert"].removeprefix("CollectionSyncLog") for rule in LOG_ALERTS}
    assert logged == {"Drift", "OldestPending", "NoHeartbeat", "DeadLetters", "BackfillStalled"}
    assert logged < metric
    assert not {rule["alert"] for rule in ALERTS} & {rule["alert"] for rule in LOG_ALERTS}


def test_the_page_lists_each_alert_with_its_severity() -> None:
    page = (ROOT / "docs" / "observability.md").read_text(encoding="utf-8")
    listed = re.findall(r"^\| `(CollectionSync\w+)` \| .+ \| (\w+) \|$", page, re.MULTILINE)
    assert sorted(listed) == sorted((rule["alert"], rule["labels"]["severity"]) for rule in ALERTS)
    severities = {rule["alert"].replace("Log", ""): rule["labels"]["severity"] for rule in LOG_ALERTS}
    assert severities.items() <= dict(listed).items()
    files = set(re.findall(r"^\| `([\w/-]+[./][\w./-]*)` \|", page, re.MULTILINE))
    assert all((HERE / file).exists() for file in files)
    assert len(files) == 8


LOGQL = [*targets("loki"), *((rule["alert"], rule["expr"]) for rule in LOG_ALERTS)]


@pytest.mark.parametrize(("title", "query"), LOGQL, ids=lambda text: text[:40])
def test_each_log_query_names_what_the_contract_has(title: str, query: str) -> None:
    for one in Query(query).ranges:
        assert one.selector.keys() <= STREAM_LABELS, title
        assert one.selector["job"] == ("=", "collection-sync")
        events = events_of(one)
        assert events, title
        for label, name in one.fields.items():
            kinds = {(COMMON | dict(CONTRACT[event].fields)).get(name) for event in events}
            assert None not in kinds, (title, name)
            if label == one.unwrapped:
                assert {kind.type for kind in kinds if kind} <= {"integer", "number"}, (title, name)
                nullable = any(kind.nullable or kind.optional for kind in kinds if kind)
                assert not nullable or (label, "!=", "") in one.filters, (title, name)
        assert one.unwrapped in {None, one.stamped, *one.fields}
        ids = {label for label, name in one.fields.items() if name.endswith("_id")}
        assert ids <= {label for label, match, wanted in one.filters if (match, wanted) == ("=", "")}, title


def events_of(one: Range) -> set[str]:
    """Return the events that a range asks for; all of them where it asks for none by name."""
    asked = [(match, wanted) for label, match, wanted in one.filters if one.fields.get(label) == "event"]
    if not asked:
        assert not one.fields
        return set(CONTRACT)
    ((match, wanted),) = asked
    events = set(wanted.split("|")) if match == "=~" else {wanted}
    assert events <= CONTRACT.keys(), wanted
    for symbol, text in one.line_filters:
        assert symbol == "|="
        assert all(text in event for event in events)
    return events


@pytest.mark.parametrize(("title", "query"), targets("loki"), ids=lambda text: text[:40])
def test_each_query_of_the_dashboard_finds_lines_made_from_the_contract(title: str, query: str) -> None:
    entries = [Entry.of(line) for line in sample_lines(iso(NOW - 5))]
    assert Query(query).matches(entries, NOW), title
    assert not Query(query).matches([], NOW), title
    others = [entry for entry in entries if '"event": "worker_started"' in entry.line]
    assert others
    assert not Query(query).matches(others, NOW), title


FIRING = {
    "Drift": [
        entry("audit_finished", -300, verdict="in_sync", project_id=None),
        entry("audit_finished", -200, verdict="drift", project_id=None),
        entry("audit_finished", -100, verdict="in_sync", project_id="p1"),
        entry("audit_finished", -50, verdict="incomplete", project_id=None),
    ],
    "OldestPending": [entry("worker_heartbeat", at, oldest_live_seconds=70 + at) for at in (-5, -1)],
    "NoHeartbeat": [entry("worker_heartbeat", -70), entry("worker_started", -1)],
    "DeadLetters": [entry("worker_heartbeat", -1, dead_letters=2)],
    "BackfillStalled": [
        entry("backfill_finished", -5000, "backfill"),
        entry("backfill_started", -4000, "backfill"),
        entry("backfill_chunk", -700, "backfill"),
    ],
}
QUIET = {
    "Drift": [
        entry("audit_finished", -400, verdict="drift", project_id=None),
        entry("audit_finished", -10, verdict="repaired", project_id=None),
    ],
    "OldestPending": [
        entry("worker_heartbeat", -6, oldest_live_seconds=75),
        entry("worker_heartbeat", -1, oldest_live_seconds=0),
        entry("worker_heartbeat", -1, oldest_live_seconds=None),
        entry("worker_heartbeat", -1, oldest_live_seconds=1, oldest_backfill_seconds=900),
    ],
    "NoHeartbeat": [entry("worker_heartbeat", -30)],
    "DeadLetters": [
        entry("worker_heartbeat", -6, dead_letters=2),
        entry("worker_heartbeat", -1, dead_letters=0),
    ],
    "BackfillStalled": [
        entry("backfill_started", -4000, "backfill"),
        entry("backfill_chunk", -3000, "backfill"),
        entry("backfill_finished", -2900, "backfill"),
    ],
}


@pytest.mark.parametrize("rule", LOG_ALERTS, ids=lambda rule: rule["alert"])
def test_each_log_alert_fires_when_it_should_and_only_then(rule: dict[str, Any]) -> None:
    query, name = Query(rule["expr"]), rule["alert"].removeprefix("CollectionSyncLog")
    assert query.vector(FIRING[name], NOW)
    assert not query.vector(QUIET[name], NOW)


def test_a_backfill_that_moves_is_not_stalled() -> None:
    query = Query(next(rule["expr"] for rule in LOG_ALERTS if "Backfill" in rule["alert"]))
    assert not query.vector([*FIRING["BackfillStalled"], entry("backfill_chunk", -30, "backfill")], NOW)


@pytest.mark.parametrize(
    "query",
    [
        '{job="x"} | json | event="a"',
        '{job="x"} | logfmt',
        'topk(3, count_over_time({job="x"}[1m]))',
        'sum(count_over_time({job="x"}))',
        'max(max_over_time({job="x"}[1m]))',
        'count_over_time({job="x"} | json a="a" | unwrap a [1m])',
        '{job="x"} | label_format at=`{{ .other }}`',
        'sum(count_over_time({job="x"}[1m])) > ',
        '{job="x"} trailing',
    ],
)
def test_what_the_evaluator_does_not_know_it_refuses(query: str) -> None:
    with pytest.raises(UnknownLogQLError):
        Query(query)


@pytest.mark.parametrize("name", OBSERVERS)
def test_an_observer_comes_only_when_asked_for_is_pinned_and_reaches_nobody(name: str) -> None:
    service = COMPOSE[name]
    assert service["profiles"] == ["observability"]
    assert re.fullmatch(r"[\w/]+:v?\d+\.\d+\.\d+", service["image"])
    assert (service["read_only"], service["cap_drop"]) == (True, ["ALL"])
    assert service["security_opt"] == ["no-new-privileges:true"]
    assert service["pids_limit"] <= 200
    assert service["mem_limit"] == "1g"
    assert service["healthcheck"]["test"][0] == "CMD"
    assert all(port.startswith("127.0.0.1:") for port in service.get("ports", []))
    assert not {"privileged", "cap_add", "network_mode", "pid"} & service.keys()
    assert "docker.sock" not in json.dumps(service)
    for volume in service["volumes"]:
        source, _, rest = volume.partition(":")
        if source.startswith("./"):
            assert rest.endswith(":ro")
            assert (ROOT / source).exists(), source


def test_without_the_profile_nothing_of_it_starts() -> None:
    assert {name for name, service in COMPOSE.items() if "profiles" in service} == set(OBSERVERS)
    for name in COMPOSE.keys() - set(OBSERVERS):
        assert not set(OBSERVERS) & set(COMPOSE[name].get("depends_on", []))


def test_grafana_lets_nobody_in_without_the_password_that_was_set() -> None:
    grafana = COMPOSE["grafana"]
    assert grafana["environment"]["GF_SECURITY_ADMIN_PASSWORD"] == "${GF_SECURITY_ADMIN_PASSWORD:-}"
    assert grafana["environment"]["GF_AUTH_ANONYMOUS_ENABLED"] == "false"
    assert grafana["environment"]["GF_USERS_ALLOW_SIGN_UP"] == "false"
    shell, option, script = grafana["entrypoint"]
    script = script.replace("$$", "$").replace("/run.sh", "echo started")
    for password, output in (("", "Set GF_SECURITY_ADMIN_PASSWORD.\n"), ("a secret", "started\n")):
        environment = {"PATH": os.environ["PATH"], "GF_SECURITY_ADMIN_PASSWORD": password}
        done = subprocess.run(
            [shell, option, script], env=environment, capture_output=True, text=True, check=False
        )
        assert (done.stdout, done.returncode == 0) == (output, bool(password))


def test_prometheus_scrapes_where_the_processes_listen() -> None:
    jobs = yaml.safe_load((HERE / "prometheus.yml").read_text())["scrape_configs"]
    api, worker = jobs
    assert api["static_configs"] == [{"targets": ["api:8000"]}]
    (names,) = worker["dns_sd_configs"]
    assert names["names"] == ["worker"]
    assert str(names["port"]) == COMPOSE["worker"]["environment"]["WORKER_METRICS_PORT"]
    assert COMPOSE["worker"]["environment"]["WORKER_METRICS_HOST"] == "0.0.0.0"  # noqa: S104 - in its network
    assert "ports" not in COMPOSE["worker"]


def test_lines_reach_loki_by_the_shared_volume_with_two_labels_that_are_no_ids() -> None:
    mounted = {name: COMPOSE[name]["volumes"] for name in ("api", "worker")}
    assert list(mounted.values()) == [["logs:/var/log/collection-sync"]] * 2
    assert "logs:/var/log/collection-sync:ro" in COMPOSE["alloy"]["volumes"]
    files = {name: Path(COMPOSE[name]["environment"]["LOG_FILE"]) for name in mounted}
    (pattern,) = re.findall(r'"__path__" = "([^"]+)"', ALLOY)
    assert all(file.match(pattern) for file in files.values())
    assert len(set(files.values())) == 2
    (labels,) = re.findall(r"stage\.labels \{\s+values = \{([^}]*)\}", ALLOY)
    assert set(re.findall(r'"(\w+)" = ""', labels)) | {"job"} == STREAM_LABELS
    assert {"process", "level"} <= COMMON.keys()
    assert 'values = ["filename"]' in ALLOY


def test_each_component_that_alloy_names_is_there() -> None:
    assert ALLOY.count("{") == ALLOY.count("}")
    there = set(re.findall(r'^([\w.]+) "(\w+)" \{', ALLOY, re.MULTILINE))
    named = set(re.findall(r"\b([a-z]+\.[a-z_.]+)\.(\w+)\.(?:targets|receiver)\b", ALLOY))
    assert named
    assert named <= there
    (url,) = re.findall(r'url = "http://(\w+):(\d+)/', ALLOY)
    loki = yaml.safe_load((HERE / "loki.yml").read_text())
    assert url == ("loki", str(loki["server"]["http_listen_port"]))


def test_loki_finds_its_rules_and_keeps_what_it_is_given() -> None:
    loki = yaml.safe_load((HERE / "loki.yml").read_text())
    rules = loki["ruler"]["storage"]["local"]["directory"]
    assert f"./deploy/observability/loki-rules:{rules}:ro" in COMPOSE["loki"]["volumes"]
    assert loki["auth_enabled"] is False  # then the tenant is called "fake"
    assert COMPOSE["loki"]["command"] == ["-config.file=/etc/loki/loki.yml"]
    assert loki["common"]["path_prefix"] == "/loki"


def test_grafana_finds_its_sources_and_dashboards() -> None:
    sources = yaml.safe_load((HERE / "grafana/datasources/datasources.yml").read_text())["datasources"]
    by_uid = {source["uid"]: source for source in sources}
    assert {uid: source["type"] for uid, source in by_uid.items()} == {
        "prometheus": "prometheus",
        "loki": "loki",
    }
    for uid, source in by_uid.items():
        assert re.fullmatch(rf"http://{uid}:\d+", source["url"])
    (provider,) = yaml.safe_load((HERE / "grafana/dashboards/dashboards.yml").read_text())["providers"]
    mounts = dict(volume.split(":")[:2] for volume in COMPOSE["grafana"]["volumes"])
    assert mounts["./deploy/observability/grafana/dashboards"] == provider["options"]["path"]
    assert {board["uid"] for board in DASHBOARDS.values()} == {
        "collection-sync-log",
        "collection-sync-metrics",
    }
    for board in DASHBOARDS.values():
        assert len({panel["id"] for panel in board["panels"]}) == len(board["panels"])
        for panel in board["panels"]:
            assert {panel["datasource"]["uid"]} == {
                target["datasource"]["uid"] for target in panel["targets"]
            }
            assert panel["datasource"]["uid"] in by_uid
            assert panel["datasource"]["type"] == by_uid[panel["datasource"]["uid"]]["type"]


def test_panels_do_not_lie_on_one_another() -> None:
    for board in DASHBOARDS.values():
        taken: set[tuple[int, int]] = set()
        for panel in board["panels"]:
            place = panel["gridPos"]
            cells = {
                (x, y)
                for x in range(place["x"], place["x"] + place["w"])
                for y in range(place["y"], place["y"] + place["h"])
            }
            assert not cells & taken, panel["title"]
            assert max(x for x, _ in cells) < 24
            taken |= cells


@pytest.mark.parametrize(
    "question",
    [
        "Last audit",
        "Agreement",
        "Lag",
        "Settled",
        "Dead letters",
        "Findings",
        "Backfill",
        "heartbeat",
        "Oldest",
    ],
)
def test_the_dashboard_from_the_log_answers_what_the_page_answers(question: str) -> None:
    titles = [panel["title"] for panel in DASHBOARDS["log"]["panels"]]
    assert any(question in title for title in titles), question
