"""The image itself: what is in it, what is not, and who may change it."""

import json
import re

from tests.deploy.dockerfile import context_copies, read_stages
from tests.forked import ROOT
from tests.image.engine import Engine

INSTALL, FINAL = read_stages()
MEGABYTE = 10**6
# What another package requires and imports only where it is asked for what we never ask for.
NEVER_IMPORTED = {
    "fastapi-offline": "/docs serves its files",
    "h11": "uvicorn: the HTTP of those without httptools",
    "idna": "anyio: names of hosts that are not ASCII",
    "markdown-it-py": "rich: Markdown",
    "mdurl": "markdown-it-py",
}
# Imports all that the image may start, and prints what is installed, and which of it that imported.
IMPORT_ALL = """
import importlib, json, pkgutil, sys
from importlib.metadata import distributions
import alembic.config, uvicorn.loops.uvloop, uvicorn.protocols.http.httptools_impl
for room in ("api", "shared", "worker"):
    for module in pkgutil.walk_packages(importlib.import_module(room).__path__, f"{room}."):
        importlib.import_module(module.name)
loaded = {getattr(module, "__file__", None) for module in sys.modules.values()}
found = {one.name: any(str(one.locate_file(each)) in loaded for each in one.files) for one in distributions()}
print(json.dumps(found))
"""


def in_image(engine: Engine, image: str, *words: str) -> str:
    return engine.said("run", "--rm", "--network", "none", image, *words)


def files_below(engine: Engine, image: str, *words: str) -> set[str]:
    return set(in_image(engine, image, "find", *words).split())


def test_it_has_what_is_locked_and_nothing_that_the_product_never_imports(engine: Engine, image: str) -> None:
    found: dict[str, bool] = json.loads(in_image(engine, image, "python", "-c", IMPORT_ALL))
    imported = {name.lower().replace("_", "-"): is_imported for name, is_imported in found.items()}
    locked = re.findall(r"^([\w-]+)==[^;\n]*(;.*)?\\$", (ROOT / "requirements.txt").read_text(), re.MULTILINE)
    everywhere = {name for name, condition in locked if not condition}
    assert everywhere <= imported.keys() <= {name for name, _ in locked}
    assert {name for name, is_imported in imported.items() if not is_imported} == NEVER_IMPORTED.keys()


def test_it_has_no_test_suites_or_sources_of_others(engine: Engine, image: str) -> None:
    left = (
        "-name",
        "*.pyx",
        "-o",
        "-name",
        "*.[ch]",
        "-o",
        "-path",
        "*/tests/*",
        "-o",
        "-path",
        "*/testing/*",
    )
    assert files_below(engine, image, "/venv", "(", *left, ")") == set()


def test_of_the_checkout_it_has_what_the_dockerfile_names_compiled(engine: Engine, image: str) -> None:
    """So the builder reads .dockerignore as we do."""
    here = {
        file.relative_to(ROOT)
        for names, place in context_copies(INSTALL)
        for name in names
        if name != "requirements.txt"
        for file in ([ROOT / name] if (ROOT / name).is_file() else (ROOT / name).rglob("*"))
        if file.is_file() and "__pycache__" not in file.parts
    }
    there = files_below(engine, image, "/app", "-type", "f", "!", "-name", "*.pyc")
    assert there == {f"/app/{file}" for file in here}
    compiled = files_below(engine, image, "/app", "-type", "f", "-name", "*.pyc")
    assert len(compiled) == sum(file.suffix == ".py" for file in here)


def test_nothing_in_it_is_its_user_s_but_the_directory_of_logs(engine: Engine, image: str) -> None:
    """On a root that can be written to: that does not rest on how it is started."""
    as_root = ("run", "--rm", "--user", "0", image, "find", "/", "-xdev", "-user", "10001")
    assert engine.said(*as_root).split() == ["/var/log/collection-sync"]
    assert files_below(engine, image, "/app", "/venv", "-writable", "!", "-type", "l") == set()


def test_nothing_in_its_description_is_a_secret_or_root_s(engine: Engine, image: str) -> None:
    config = engine.inspect(image)["Config"]
    assert config["User"] == FINAL.the("USER")
    assert {pair.partition("=")[0] for pair in config["Env"]} >= FINAL.environment().keys()
    assert not [pair for pair in config["Env"] if re.search("TOKEN|PASSWORD|SECRET|_URL", pair)]
    assert config["Cmd"] == FINAL.command()
    assert config["Healthcheck"]["Test"] == ["CMD", *FINAL.health_command()]


def test_its_python_is_the_one_that_its_base_promises(engine: Engine, image: str) -> None:
    """In the place of the registry's base there may be Debian's, of the same minor version."""
    minor = re.fullmatch(r"python:(3\.\d+)\.\d+-slim-\w+", FINAL.base)
    assert minor
    assert in_image(engine, image, "python", "--version").startswith(f"Python {minor[1]}.")


def test_it_adds_110_megabytes_to_its_base_at_most(engine: Engine, image: str) -> None:
    sizes = [engine.inspect(name)["Size"] for name in (image, FINAL.base)]
    assert sizes[0] - sizes[1] <= 110 * MEGABYTE
