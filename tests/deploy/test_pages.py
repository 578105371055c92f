"""The pages of docs/deploy name commands, files, variables and numbers that there are."""

import importlib.util
import re
from pathlib import Path

import pytest
import yaml  # type: ignore[import-untyped]
from pydantic import SecretStr

from api.main import create_app
from shared.settings import Settings
from tests.deploy.test_kubernetes import BY_NAME, POLICIES, SCALED, TEMPLATES, TRIGGER, container_of
from tests.deploy.test_railway import SERVICES
from tests.forked import ROOT

PAGES = {path.name: path.read_text(encoding="utf-8") for path in (ROOT / "docs" / "deploy").glob("*.md")}
COMPOSE_TEXT = (ROOT / "docker-compose.yml").read_text(encoding="utf-8")
COMPOSE = yaml.safe_load(COMPOSE_TEXT)["services"]
NOWHERE = SecretStr("postgresql://nobody@127.0.0.1:1/none"), SecretStr("redis://127.0.0.1:1")
ROUTES = set(create_app(Settings(database_url=NOWHERE[0], redis_url=NOWHERE[1])).openapi()["paths"])
OF_OTHERS = {"DATABASE_PUBLIC_URL", "RAILWAY_"}  # Railway's
TO_FILL_IN = {"YOUR-DOMAIN", "YOUR-GATEWAY", "YOUR-PROMETHEUS"}
BLOCK = re.compile(r"^( *)```\w*\n(.*?)^\1```", re.MULTILINE | re.DOTALL)


def code_of(page: str) -> str:
    """Return what stands as code, with lines that go on joined."""
    text = PAGES[page]
    blocks = [found for _, found in BLOCK.findall(text)]
    spans = re.findall(r"`([^`\n]+)`", BLOCK.sub("", text))
    return "\n".join(blocks + spans).replace("\\\n", " ")


def options_of(module: str) -> str:
    """Return the source of the command, which holds the names of its options."""
    found = importlib.util.find_spec(module)
    assert found, module
    assert found.origin
    origin = Path(found.origin)
    files = origin.parent.glob("*.py") if origin.name == "__init__.py" else [origin]
    if module == "worker":
        files = [origin.parent / "__main__.py"]
    return "\n".join(path.read_text(encoding="utf-8") for path in files)


@pytest.mark.parametrize("page", PAGES)
def test_each_command_has_a_module_and_its_options(page: str) -> None:
    said = re.findall(r"python -m ([\w.]+)((?: +[\w-]+)*)", code_of(page))
    for module, rest in said:
        source = options_of(module)
        for word in rest.split():
            assert f'"{word}"' in source, (module, word)


@pytest.mark.parametrize("page", PAGES)
def test_each_path_leads_to_something(page: str) -> None:
    said = re.findall(
        r"(?<![\w.-])/?((?:deploy|docs|tests|migrations|shared|worker|api)/[\w./-]+)", code_of(page)
    )
    assert [path for path in said if not (ROOT / path).exists()] == []


@pytest.mark.parametrize("page", PAGES)
def test_each_variable_is_one_that_somebody_reads(page: str) -> None:
    said = set(re.findall(r"(?<![\w-])[A-Z][A-Z]*_[A-Z_]*(?![\w-])", code_of(page)))
    ours = {name.upper() for name in Settings.model_fields} | set(re.findall(r"[A-Z]+_[A-Z_]+", COMPOSE_TEXT))
    assert said - ours - OF_OTHERS == set()


@pytest.mark.parametrize("page", PAGES)
def test_each_route_is_served(page: str) -> None:
    said = set(re.findall(r"/(?:admin(?:/[\w-]+)+|healthz|readyz|livez)\b", code_of(page)))
    assert said <= ROUTES, said - ROUTES


def test_the_pages_say_something_that_these_tests_look_for() -> None:
    everything = "\n".join(map(code_of, PAGES))
    for each in ("python -m worker.backfill --wait", "deploy/roles.sql", "ADMIN_TOKEN", "/admin/backfill"):
        assert each in everything
    assert set(re.findall(r"YOUR-[A-Z]+", everything)) == TO_FILL_IN


def test_what_is_said_of_compose_is_in_the_file() -> None:
    said = code_of("containers.md")
    for service in re.findall(r"--scale (\w+)=|run --rm (\w+)", said):
        assert set(filter(None, service)) <= COMPOSE.keys()
    (profile,) = set(re.findall(r"--profile (\w+)", said))
    assert profile in COMPOSE["grafana"]["profiles"]
    graces = [COMPOSE[name]["stop_grace_period"].replace("s", " s") for name in ("api", "worker")]
    assert f"compose waits {graces[0]} and {graces[1]}" in PAGES["containers.md"]
    assert COMPOSE["api"]["image"] in said


def test_what_is_said_of_railway_is_in_its_files() -> None:
    text = PAGES["railway.md"]
    api, worker = SERVICES["api"]["deploy"], SERVICES["worker"]["deploy"]
    assert f"overlap for {api['overlapSeconds']} s" in text
    assert api["overlapSeconds"] == worker["overlapSeconds"]
    assert f"{api['drainingSeconds']} s (API) and {worker['drainingSeconds']} s (worker)" in text
    assert f"`{api['preDeployCommand'][0]}`" in text
    assert f"`{worker['startCommand']}`" in text


def test_each_object_that_kubectl_is_told_of_is_in_the_manifests() -> None:
    said = code_of("kubernetes.md")
    made = set(re.findall(r"create job ([\w-]+)", said))
    for kind, name in re.findall(r"\b(job|cronjob|deployment)/([\w-]+)", said):
        known = {each.lower() for each in BY_NAME}
        assert name in made or f"{kind}/{name}" in known, (kind, name)
    assert made


def test_the_secrets_are_those_that_the_manifests_read() -> None:
    rows = re.findall(r"^\| `(collection-sync-\w+)` \| ([^|]+) \|", PAGES["kubernetes.md"], re.MULTILINE)
    said = {name: set(re.findall(r"`(\w+)`", keys)) for name, keys in rows}
    read: dict[str, set[str]] = {}
    for name in TEMPLATES:
        for variable in container_of(name)["env"]:
            if key := variable.get("valueFrom", {}).get("secretKeyRef"):
                read.setdefault(key["name"], set()).add(key["key"])
    for key in BY_NAME["TriggerAuthentication/collection-sync-scaler"]["spec"]["secretTargetRef"]:
        read.setdefault(key["name"], set()).add(key["key"])
    assert said == read


def test_the_labels_and_numbers_of_kubernetes_are_those_of_the_manifests() -> None:
    text = PAGES["kubernetes.md"]
    spec = SCALED["spec"]
    bounds = f"between {spec['minReplicaCount']} and {spec['maxReplicaCount']}"
    assert f"one worker for each {TRIGGER['metadata']['targetQueryValue']} s of that, {bounds}" in text
    assert f"falls back to {spec['fallback']['replicas']}" in text
    labels = {
        label
        for policy in POLICIES.values()
        for rule in policy.get("ingress", [])
        for who in rule["from"]
        for label in who["namespaceSelector"]["matchLabels"]
    }
    assert set(re.findall(r"(collection-sync/\w+)=true", text)) == labels
