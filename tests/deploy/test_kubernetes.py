"""The manifests of deploy/kubernetes, as far as they can be shown without a cluster."""

import copy
import importlib.util
import re
import tomllib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import kubernetes_validate  # type: ignore[import-untyped]
import pytest
import yaml  # type: ignore[import-untyped]
from kubernetes_validate import ValidationError, validate

from api.health import health
from api.metrics import router as metrics
from shared.settings import Settings
from tests.deploy.dockerfile import read_stages
from tests.forked import ROOT
from worker.main import COMPLETION_WAIT_SECONDS

Manifest = dict[str, Any]
HERE = ROOT / "deploy" / "kubernetes"
IMAGE = read_stages()[-1]


def documents(path: Path) -> list[Manifest]:
    return [each for each in yaml.safe_load_all(path.read_text(encoding="utf-8")) if each]


# What `kubectl apply -k` does with the objects is set there, and kept to what can be seen at a glance.
DIRECTORIES = ("migrate", "base", "keda")
SETTINGS = {name: documents(HERE / name / "kustomization.yaml")[0] for name in DIRECTORIES}
OBJECTS = {
    name: [
        each
        for file in SETTINGS[name]["resources"]
        if (HERE / name / file).is_file()
        for each in documents(HERE / name / file)
    ]
    for name in DIRECTORIES
}
ALL = [each for objects in (documents(HERE / "namespace.yaml"), *OBJECTS.values()) for each in objects]
KEDA = [each for each in ALL if each["apiVersion"].startswith("keda.sh/")]
OF_KUBERNETES = [each for each in ALL if each not in KEDA]
NEWEST = kubernetes_validate.latest_version().rpartition(".")[0]
VERSIONS = ("1.30", NEWEST)  # from the first whose preStop sleeps without a feature gate


def name_of(each: Manifest) -> str:
    return f"{each['kind']}/{each['metadata']['name']}"


BY_NAME = {name_of(each): each for each in ALL}


def template_of(each: Manifest) -> Manifest | None:
    """Return the pattern of the pods that the object makes."""
    spec: Manifest = each.get("spec", {})
    if each["kind"] == "CronJob":
        spec = spec["jobTemplate"]["spec"]
    return spec.get("template")


TEMPLATES = {name: template for name, each in BY_NAME.items() if (template := template_of(each))}


def pod_of(name: str) -> Manifest:
    pod: Manifest = TEMPLATES[name]["spec"]
    return pod


def container_of(name: str) -> Manifest:
    (container,) = pod_of(name)["containers"]
    found: Manifest = container
    return found


def labels_of(name: str) -> dict[str, str]:
    labels: dict[str, str] = TEMPLATES[name]["metadata"]["labels"]
    return labels


def selected(selector: dict[str, str]) -> set[str]:
    return {name for name in TEMPLATES if selector.items() <= labels_of(name).items()}


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("each", OF_KUBERNETES, ids=name_of)
def test_each_object_is_what_kubernetes_knows(each: Manifest, version: str) -> None:
    assert validate(each, version, strict=True) == version


@pytest.mark.parametrize(
    "harm",
    [
        lambda pod, _: pod.update(terminationGracePeriodSecond=30),
        lambda _, container: container["readinessProbe"].update(httpGet={"path": "/readyz"}),
    ],
    ids=["unknown field", "no port"],
)
def test_a_mistake_in_a_manifest_is_seen(harm: Callable[[Manifest, Manifest], object]) -> None:
    harmed = copy.deepcopy(BY_NAME["Deployment/collection-sync-api"])
    pod = harmed["spec"]["template"]["spec"]
    harm(pod, pod["containers"][0])
    with pytest.raises(ValidationError):
        validate(harmed, NEWEST, strict=True)


def test_every_file_is_applied_once_and_no_name_stands_for_two_objects() -> None:
    listed = [
        path
        for name in DIRECTORIES
        for file in SETTINGS[name]["resources"]
        if (path := (HERE / name / file).resolve()).is_file()
    ]
    there = {path for path in HERE.glob("*/*.yaml") if path.name != "kustomization.yaml"}
    assert sorted(listed) == sorted(there)
    assert len(BY_NAME) == len(ALL)
    assert SETTINGS["keda"]["resources"][0] == "../base"  # which it changes


@pytest.mark.parametrize("name", DIRECTORIES)
def test_a_directory_gives_its_objects_the_namespace_and_the_image_and_changes_no_more(name: str) -> None:
    settings = SETTINGS[name]
    known = {"apiVersion", "kind", "namespace", "resources", "images", "patches"}
    assert settings.keys() <= known, settings.keys() - known
    assert settings["namespace"] == "collection-sync"
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    image = {"name": project["name"], "newTag": project["version"]}
    uses_it = any(template_of(each) for each in OBJECTS[name])
    assert settings.get("images", []) == ([image] if uses_it else [])
    assert ("patches" in settings) == (name == "keda")


@pytest.mark.parametrize("name", TEMPLATES)
def test_each_pod_is_a_numbered_user_without_rights(name: str) -> None:
    pod, container = pod_of(name), container_of(name)
    user, _, group = IMAGE.the("USER").partition(":")
    assert pod["securityContext"] == {
        "runAsNonRoot": True,
        "runAsUser": int(user),
        "runAsGroup": int(group),
        "seccompProfile": {"type": "RuntimeDefault"},
    }
    assert container["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }
    assert (pod["automountServiceAccountToken"], pod["enableServiceLinks"]) == (False, False)
    assert not {"hostNetwork", "hostPID", "hostIPC", "volumes", "initContainers"} & pod.keys()
    assert {"cpu", "memory"} <= container["resources"]["requests"].keys()
    assert "memory" in container["resources"]["limits"]


def test_the_namespace_refuses_pods_that_ask_for_more() -> None:
    labels = BY_NAME["Namespace/collection-sync"]["metadata"]["labels"]
    assert labels["pod-security.kubernetes.io/enforce"] == "restricted"
    assert {each["metadata"].get("namespace", "collection-sync") for each in ALL} == {"collection-sync"}


def test_all_pods_have_one_image() -> None:
    assert {container_of(name)["image"] for name in TEMPLATES} == {"collection-sync"}


@pytest.mark.parametrize("name", TEMPLATES)
def test_each_command_is_in_the_image(name: str) -> None:
    words = container_of(name).get("command") or IMAGE.command()
    if words[:2] == ["python", "-m"]:
        assert importlib.util.find_spec(words[2])
        assert words[2].partition(".")[0] in {source for text in IMAGE_SOURCES for source in text.split()}
    else:
        assert words[0] in {"sh", "alembic", "sleep"}


IMAGE_SOURCES = read_stages()[0].all_of("COPY")
REQUIRED = {"api": {"DATABASE_URL", "REDIS_URL"}, "worker": {"DATABASE_URL", "REDIS_URL"}}


@pytest.mark.parametrize("name", TEMPLATES)
def test_each_process_has_the_variables_that_it_needs_and_none_that_it_does_not_know(name: str) -> None:
    given = {variable["name"] for variable in container_of(name)["env"]}
    known = {field.upper() for field in Settings.model_fields} | {"PORT"}
    assert given <= known
    component = labels_of(name)["app.kubernetes.io/component"]
    assert given >= REQUIRED.get(component, {"DATABASE_URL"})


def secrets_of(name: str) -> set[str]:
    sources = [variable.get("valueFrom", {}) for variable in container_of(name)["env"]]
    return {source["secretKeyRef"]["name"] for source in sources if "secretKeyRef" in source}


def test_each_process_reads_one_secret_and_shares_it_with_no_other() -> None:
    by_component: dict[str, set[str]] = {}
    for name in TEMPLATES:
        by_component.setdefault(labels_of(name)["app.kubernetes.io/component"], set()).update(
            secrets_of(name)
        )
    owners = {component: name for component, (name,) in by_component.items()}
    assert owners == {
        "migrate": "collection-sync-owner",
        "api": "collection-sync-api",
        "worker": "collection-sync-worker",
        "command": "collection-sync-operator",
    }
    assert not [each for each in ALL if each["kind"] == "Secret"]


def test_no_value_of_a_secret_stands_in_a_manifest() -> None:
    plain = {
        variable["name"]
        for name in TEMPLATES
        for variable in container_of(name)["env"]
        if "value" in variable
    }
    assert plain == {"PORT", "WORKER_METRICS_PORT"}


def test_probes_ask_for_what_the_api_answers() -> None:
    container = container_of("Deployment/collection-sync-api")
    paths = {
        probe: container[probe]["httpGet"]["path"]
        for probe in ("livenessProbe", "startupProbe", "readinessProbe")
    }
    assert paths == {"livenessProbe": "/healthz", "startupProbe": "/healthz", "readinessProbe": "/readyz"}
    assert set(paths.values()) <= {getattr(route, "path", None) for route in health.routes}
    assert "/metrics" in {getattr(route, "path", None) for route in metrics.routes}


def test_a_worker_is_not_restarted_because_redis_is_away() -> None:
    """Its check asks Redis; only a rollout may wait for that."""
    container = container_of("Deployment/collection-sync-worker")
    assert container["readinessProbe"]["exec"]["command"] == ["python", "-m", "worker", "--check"]
    assert not {"livenessProbe", "startupProbe"} & container.keys()


def variables(name: str) -> dict[str, str]:
    return {each["name"]: each["value"] for each in container_of(name)["env"] if "value" in each}


def test_ports_are_the_same_wherever_they_are_named() -> None:
    (http,) = container_of("Deployment/collection-sync-api")["ports"]
    (metrics_port,) = container_of("Deployment/collection-sync-worker")["ports"]
    assert variables("Deployment/collection-sync-api")["PORT"] == str(http["containerPort"])
    assert IMAGE.environment()["DEFAULT_PORT"] == str(http["containerPort"])
    worker = variables("Deployment/collection-sync-worker")
    assert worker["WORKER_METRICS_PORT"] == str(metrics_port["containerPort"])
    (service,) = BY_NAME["Service/collection-sync-api"]["spec"]["ports"]
    assert service["targetPort"] == http["name"]


def test_a_pod_has_longer_to_end_than_its_process_takes() -> None:
    api, worker = pod_of("Deployment/collection-sync-api"), pod_of("Deployment/collection-sync-worker")
    words = IMAGE.command()[-1].split()
    patience = int(words[words.index("--timeout-graceful-shutdown") + 1])
    pause = api["containers"][0]["lifecycle"]["preStop"]["sleep"]["seconds"]
    assert api["terminationGracePeriodSeconds"] >= pause + patience + 5
    assert worker["terminationGracePeriodSeconds"] >= COMPLETION_WAIT_SECONDS + 5


def selectors() -> Iterator[tuple[str, dict[str, str]]]:
    for name, each in BY_NAME.items():
        match each["kind"]:
            case "Service":
                yield name, each["spec"]["selector"]
            case "PodDisruptionBudget" | "Deployment":
                yield name, each["spec"]["selector"]["matchLabels"]


@pytest.mark.parametrize(("name", "selector"), list(selectors()))
def test_a_selector_finds_the_pods_of_its_own_name_and_no_others(name: str, selector: dict[str, str]) -> None:
    kind_and_name = f"Deployment/{name.partition('/')[2]}"
    assert selected(selector) == {kind_and_name}


def test_a_drained_node_never_takes_all_of_a_kind() -> None:
    for name in ("collection-sync-api", "collection-sync-worker"):
        assert BY_NAME[f"PodDisruptionBudget/{name}"]["spec"]["maxUnavailable"] == 1
        assert BY_NAME[f"Deployment/{name}"]["spec"]["replicas"] >= 2
        (spread,) = pod_of(f"Deployment/{name}")["topologySpreadConstraints"]
        assert selected(spread["labelSelector"]["matchLabels"]) == {f"Deployment/{name}"}


def test_commands_run_only_when_somebody_starts_them_and_once() -> None:
    commands = [each for each in ALL if each["kind"] == "CronJob"]
    assert {each["metadata"]["name"] for each in commands} == {
        "collection-sync-backfill",
        "collection-sync-audit",
        "collection-sync-shell",
    }
    for each in commands:
        assert each["spec"]["suspend"] is True
        assert each["spec"]["jobTemplate"]["spec"]["backoffLimit"] == 0
    assert BY_NAME["Job/collection-sync-migrate"]["spec"]["backoffLimit"] == 0


POLICIES = {name: each["spec"] for name, each in BY_NAME.items() if each["kind"] == "NetworkPolicy"}


def test_nothing_is_reached_and_reaches_out_but_for_what_a_policy_allows() -> None:
    deny = POLICIES["NetworkPolicy/default-deny"]
    assert deny == {"podSelector": {}, "policyTypes": ["Ingress", "Egress"]}
    assert name_of(OBJECTS["migrate"][1]) == "NetworkPolicy/default-deny"  # with what is applied first
    opened = {
        (direction, port["port"], name)
        for policy in POLICIES.values()
        for direction in ("ingress", "egress")
        for rule in policy.get(direction, [])
        for port in rule["ports"]
        for name in selected(policy["podSelector"].get("matchLabels", {}))
    }
    outward = {("egress", port, name) for port in (53, 5432, 6379) for name in TEMPLATES}
    inward = {
        ("ingress", 8000, "Deployment/collection-sync-api"),
        ("ingress", 9464, "Deployment/collection-sync-worker"),
    }
    assert opened == outward | inward
    for policy in POLICIES.values():
        assert all(rule["from"] for rule in policy.get("ingress", []))  # nobody is let in unnamed


SCALED = BY_NAME["ScaledObject/collection-sync-worker"]
TRIGGER = SCALED["spec"]["triggers"][0]
# Of KEDA's definitions only what stands here is used: fields and types by its reference for 2.19.
KEDAS: dict[str, dict[str, type]] = {
    "spec": {
        "scaleTargetRef": dict,
        "minReplicaCount": int,
        "maxReplicaCount": int,
        "pollingInterval": int,
        "fallback": dict,
        "advanced": dict,
        "triggers": list,
    },
    "trigger": {"type": str, "metricType": str, "metadata": dict, "authenticationRef": dict},
    "metadata": {"query": str, "targetQueryValue": str},
    "fallback": {"failureThreshold": int, "replicas": int},
    "secret": {"parameter": str, "name": str, "key": str},
}


def assert_is(value: dict[str, Any], of: str) -> None:
    assert {key: type(each) for key, each in value.items()} == KEDAS[of]


def test_the_scaler_has_the_fields_that_kedas_reference_names() -> None:
    assert_is(SCALED["spec"], "spec")
    assert_is(SCALED["spec"]["fallback"], "fallback")
    assert_is(TRIGGER, "trigger")
    assert_is(TRIGGER["metadata"], "metadata")
    assert (TRIGGER["type"], TRIGGER["metricType"]) == ("postgresql", "AverageValue")
    assert float(TRIGGER["metadata"]["targetQueryValue"]) > 0
    autoscaler = SCALED["spec"]["advanced"]["horizontalPodAutoscalerConfig"]
    hpa = {
        "apiVersion": "autoscaling/v2",
        "kind": "HorizontalPodAutoscaler",
        "spec": {"maxReplicas": 1, "scaleTargetRef": {"kind": "Deployment", "name": "x"}, **autoscaler},
    }
    assert validate(hpa, NEWEST, strict=True)


def test_keda_scales_the_workers_between_bounds_that_leave_some_and_are_few() -> None:
    spec = SCALED["spec"]
    assert f"Deployment/{spec['scaleTargetRef']['name']}" == "Deployment/collection-sync-worker"
    assert 2 <= spec["minReplicaCount"] == spec["fallback"]["replicas"] < spec["maxReplicaCount"] <= 4
    (patch,) = SETTINGS["keda"]["patches"]  # or each `kubectl apply` would undo what the scaler did
    assert patch["target"] == {"kind": "Deployment", "name": "collection-sync-worker"}
    assert yaml.safe_load(patch["patch"]) == [{"op": "remove", "path": "/spec/replicas"}]


def test_keda_gets_every_part_of_its_connection_from_a_secret_of_its_own() -> None:
    authentication = BY_NAME[f"TriggerAuthentication/{TRIGGER['authenticationRef']['name']}"]
    secrets = authentication["spec"]["secretTargetRef"]
    for each in secrets:
        assert_is(each, "secret")
    assert {each["parameter"] for each in secrets} == {
        "host",
        "port",
        "dbName",
        "sslmode",
        "userName",
        "password",
    }
    assert {each["name"] for each in secrets} == {"collection-sync-scaler"}
    assert not re.search(r"password|postgres(ql)?://", yaml.safe_dump(TRIGGER["metadata"]))
