"""What `pip install .` asks for a build: there is nothing to install, and this says why."""

import sys
from typing import NoReturn

WHY = (
    "collection-sync is not a package: its parts are called api, worker and shared, and would take these"
    " names from everything else. Run it from its checkout (`make venv`) or its image (`docker build .`)."
)


def get_requires_for_build_wheel(_settings: object = None) -> NoReturn:
    sys.exit(WHY)


get_requires_for_build_editable = get_requires_for_build_sdist = get_requires_for_build_wheel
build_wheel = build_editable = build_sdist = get_requires_for_build_wheel
