"""Which release this is, as the checkout says it: nothing of ours is installed, so no metadata knows."""

import tomllib
from pathlib import Path

PROJECT = Path(__file__).parents[1] / "pyproject.toml"


def read_version() -> str:
    with PROJECT.open("rb") as file:
        return str(tomllib.load(file)["project"]["version"])
