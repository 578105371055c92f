"""Prometheus, Loki, Alloy and Grafana, as far as they can be shown without a container engine."""

import json
import os
import re
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml  # type: ignore[import-untyped]

from shared.logs.contract import CONTRACT
from shared.logs.declaring import COMMON
from tests.forked import ROOT
from tests.metrics.page import documented
from tests.metrics.promql import names_and_labels
from tests.metrics.promtool import promtool

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


@dataclass(frozen=True)
class Asked:
    """What a log query asks of one selection of lines, as far as names of ours stand in it."""

    stream: dict[str, str]  # label: the value or pattern that it must have
    contains: list[str]
    fields: dict[str, str]  # label: the line's field that it is read from
    filters: set[tuple[str, str, str]]  # label, comparison, value
    stamped: set[str]
    unwrapped: set[str]

    def words(self, label: str) -> set[str]:
        """Return the words that the label is compared with."""
        return {word for one, _, values in self.filters if one == label for word in values.split("|") if word}


def asked_of_lines(query: str) -> list[Asked]:
    """Read each selection of a query; nothing but names is understood, Loki judges the rest."""
    found = []
    for selector, stages in re.findall(r"\{([^{}]*=[^{}]*)\}([^{}]*(?:\{\{[^{}]*\}\}[^{}]*)*)", query):
        pipeline = re.split(r"[\[)]", stages)[0]
        fields = "".join(re.findall(r"\| json ([^|]*)", pipeline))
        found.append(
            Asked(
                stream=dict(re.findall(r'(\w+)=~?"([^"]*)"', selector)),
                contains=re.findall(r'\|= "([^"]*)"', pipeline),
                fields=dict(re.findall(r'(\w+)="(\w+)"', fields)),
                filters=set(re.findall(r'\| (\w+)(=~|!~|!=|=)"([^"]*)"', pipeline)),
                stamped=set(re.findall(r"\| label_format (\w+)=`\{\{ __timestamp__ ", pipeline)),
                unwrapped=set(re.findall(r"\| unwrap (\w+)", pipeline)),
            )
        )
    return found


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
    selections = asked_of_lines(query)
    assert len(selections) == query.count('job="collection-sync"') > 0, title
    for asked in selections:
        assert asked.stream.keys() <= STREAM_LABELS, title
        events = events_of(asked)
        assert events, title
        for label, name in asked.fields.items():
            kinds = {(COMMON | dict(CONTRACT[event].fields)).get(name) for event in events}
            assert None not in kinds, (title, name)
            words = {
                word
                for one, match, value in asked.filters
                if (one, match) == (label, "=")
                for word in [value]
            }
            assert all(word in kind.meaning for kind in kinds if kind for word in words if name != "event"), (
                title
            )
            if label in asked.unwrapped:
                assert {kind.type for kind in kinds if kind} <= {"integer", "number"}, (title, name)
                nullable = any(kind.nullable or kind.optional for kind in kinds if kind)
                assert not nullable or (label, "!=", "") in asked.filters, (title, name)
        assert asked.unwrapped <= asked.stamped | asked.fields.keys(), title
        assert {label for label, *_ in asked.filters} <= asked.fields.keys(), title
        ids = {label for label, name in asked.fields.items() if name.endswith("_id")}
        assert ids <= {label for label, match, wanted in asked.filters if (match, wanted) == ("=", "")}, title


def events_of(asked: Asked) -> set[str]:
    """Return the events that are asked for; all of them where none is asked for by name."""
    named = [(match, wanted) for label, match, wanted in asked.filters if asked.fields.get(label) == "event"]
    if not named:
        assert not asked.fields
        return set(CONTRACT)
    ((match, wanted),) = named
    events = set(wanted.split("|")) if match == "=~" else {wanted}
    assert events <= CONTRACT.keys(), wanted
    assert all(text in event for text in asked.contains for event in events)
    return events


@pytest.mark.parametrize(
    "harm",
    [
        ("oldest_live_seconds", "oldest"),
        ("worker_heartbeat", "heartbeat"),
        ("process=", "host="),
        ("unwrap ", "unwrap no"),
    ],
    ids=["field", "event", "stream", "label"],
)
def test_a_wrong_name_in_a_log_query_is_seen(harm: tuple[str, str]) -> None:
    (query,) = (rule["expr"] for rule in LOG_ALERTS if rule["alert"].endswith("OldestPending"))
    with pytest.raises(AssertionError):
        test_each_log_query_names_what_the_contract_has("harmed", query.replace(*harm))


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
