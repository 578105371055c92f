"""Scripts that log, in processes of their own: logging is a process's one and all."""

import io
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

from shared.logs.contract import CONTRACT
from tests.forked import ROOT
from tests.log_lines import hold_against_contract
from tests.processes import HANG_SECONDS

BEGIN = """
import resource, sys
from pathlib import Path
import structlog
import shared.logs.file
from shared.logs.setup import configure_logging, log_many

file = Path(sys.argv[1])
shared.logs.file.MAX_BYTES, shared.logs.file.FILES = int(sys.argv[2]), int(sys.argv[3])
configure_logging("test", file, sys.stdout)
log = structlog.get_logger()
"""
LARGE = 10**9


def start(script: str, file: Path, max_bytes: int = LARGE, files: int = 5) -> subprocess.Popen[str]:
    """Start the script with a log file, of at most so many bytes, and so many of them."""
    command = [sys.executable, "-c", BEGIN + script, str(file), str(max_bytes), str(files)]
    pipe = subprocess.PIPE
    return subprocess.Popen(command, cwd=ROOT, stdin=pipe, stdout=pipe, stderr=pipe, text=True)


def run(script: str, file: Path, max_bytes: int = LARGE, files: int = 5) -> list[dict[str, Any]]:
    """Run the script and return what it logged to stdout; it must not have complained."""
    with start(script, file, max_bytes, files) as process:
        stdout, stderr = process.communicate(timeout=HANG_SECONDS)
    assert (process.returncode, stderr) == (0, "")
    lines: list[dict[str, Any]] = [json.loads(line) for line in io.StringIO(stdout)]
    hold_against_contract(line for line in lines if line["event"] in CONTRACT)  # the others are the script's
    return lines
