"""Prometheus's own checker of configurations, rules and expositions."""

import os
import shutil
import subprocess

import pytest

INSTALL = "promtool is not on PATH: install Debian's package `prometheus`, or Prometheus's own archive"


def promtool(*arguments: str, text: str | None = None) -> str:
    """Run promtool to its success and return what it complained about; skip where there is none.

    In CI there has to be one: a check that is always skipped is none.
    """
    command = shutil.which("promtool")
    if command is None:
        if os.environ.get("CI"):
            pytest.fail(INSTALL)
        pytest.skip(INSTALL)
    done = subprocess.run(
        [command, *arguments], input=text, capture_output=True, text=True, check=False, timeout=60
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stderr
