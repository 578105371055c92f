"""As much of kustomize as deploy/kubernetes uses; whatever else it says is an error, never passed over."""

from pathlib import Path
from typing import Any

import yaml  # type: ignore[import-untyped]

from tests.processes import ROOT

HERE = ROOT / "deploy" / "kubernetes"
KNOWN = {"apiVersion", "kind", "namespace", "resources", "images", "patches"}
Manifest = dict[str, Any]


def documents(path: Path) -> list[Manifest]:
    return [each for each in yaml.safe_load_all(path.read_text(encoding="utf-8")) if each]


def render(directory: Path) -> list[Manifest]:
    """Return the objects that `kubectl apply -k DIRECTORY` would send."""
    (said,) = documents(directory / "kustomization.yaml")
    assert said.keys() <= KNOWN, said.keys() - KNOWN
    objects: list[Manifest] = []
    for name in said["resources"]:
        path = directory / name
        objects += render(path) if path.is_dir() else documents(path)
    for each in objects:
        each["metadata"]["namespace"] = said["namespace"]
        for image in said.get("images", []):
            set_tag(each, image)
    for patch in said.get("patches", []):
        apply_patch(objects, patch)
    return objects


def set_tag(value: Any, image: dict[str, str]) -> None:  # noqa: ANN401 - whatever YAML holds
    assert image.keys() == {"name", "newTag"}
    if isinstance(value, dict):
        if value.get("image") == image["name"]:
            value["image"] += f":{image['newTag']}"
        for each in value.values():
            set_tag(each, image)
    elif isinstance(value, list):
        for each in value:
            set_tag(each, image)


def apply_patch(objects: list[Manifest], patch: dict[str, Any]) -> None:
    target = patch["target"]
    (found,) = [
        each
        for each in objects
        if (each["kind"], each["metadata"]["name"]) == (target["kind"], target["name"])
    ]
    for step in yaml.safe_load(patch["patch"]):
        assert step.keys() == {"op", "path"}
        assert step["op"] == "remove"
        *parents, last = step["path"].strip("/").split("/")
        place = found
        for parent in parents:
            place = place[parent]
        del place[last]
