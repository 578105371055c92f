"""Be `python WORDS` with standard streams that programs do not expect: `launch.py HOW WORDS`, HOW in JSON."""

import json
import os
import runpy
import sys
from typing import Any

from worker.command_line.console import stderr, stdout


def be(how: dict[str, Any], words: list[str]) -> None:
    if how.get("full"):
        os.dup2(os.open("/dev/full", os.O_WRONLY), 1)
    if encoding := how.get("encoding"):
        sys.stdout = open(1, "w", encoding=encoding, closefd=False)  # noqa: SIM115 - while we live
        sys.stderr = open(2, "w", encoding=encoding, closefd=False)  # noqa: SIM115
    if how.get("closed"):
        sys.stdin = sys.stdout = sys.stderr = None  # as Python does
        for number in range(3):
            os.close(number)
    for console in (stdout, stderr):  # which the fork's server made, from its environment
        console.__init__(stderr=console.stderr)  # type: ignore[misc]
    if words[0] == "-m":
        sys.argv = words[1:]
        runpy.run_module(words[1], run_name="__main__", alter_sys=True)
    else:
        sys.argv = words
        runpy.run_path(words[0], run_name="__main__")


if __name__ == "__main__":
    be(json.loads(sys.argv[1]), sys.argv[2:])
