"""Prometheus's own checker of configurations, rules and expositions."""

import subprocess

from tests.processes import HANG_SECONDS
from tests.programs import needed


def promtool(*arguments: str, text: str | None = None) -> str:
    """Run promtool to its success and return what it complained about; see `needed` where there is none."""
    done = subprocess.run(
        [needed("promtool"), *arguments],
        input=text,
        capture_output=True,
        text=True,
        check=False,
        timeout=HANG_SECONDS,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stderr
