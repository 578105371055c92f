"""A virtual environment for each peer, made from its pinned requirements and kept for the next run."""

import asyncio
import hashlib
import shutil
import sys
from asyncio.subprocess import PIPE, STDOUT
from pathlib import Path

from deploy.local.programs import ROOT

REQUIREMENTS = Path(__file__).parent / "requirements"
KEPT = ROOT / ".local" / "peers"
INSTALL_TIMEOUT_SECONDS = 300


class Unmeasured(Exception):  # noqa: N818 - a fact about a peer, not a fault of ours
    """A system could not be installed, or did not do its work; the message says why."""


def pins(name: str) -> str:
    asked = (REQUIREMENTS / f"{name}.in").read_text().split()
    return ", ".join(line for line in asked if "==" in line)


async def python_for(name: str) -> Path:
    """Return the interpreter of the peer's environment.

    Raises:
        Unmeasured: pip could not install it.

    """
    return await python_with(REQUIREMENTS / f"{name}.txt", KEPT / name)


async def python_with(requirements: Path, kept: Path) -> Path:
    """Return the interpreter of an environment; made anew when its requirements or Python changed.

    Args:
        requirements: a file of pins with hashes.
        kept: where the environment is kept; a part that says what it was made from is added to the name.

    Raises:
        Unmeasured: pip could not install it.

    """
    home = _home(requirements, kept)
    python, made = home / "bin" / "python", home / "made"
    if not made.exists():
        shutil.rmtree(home, ignore_errors=True)
        await _run(sys.executable, "-m", "venv", str(home))
        options = ("--quiet", "--disable-pip-version-check", "--require-hashes")
        await _run(str(python), "-m", "pip", "install", *options, "-r", str(requirements))
        made.touch()
    return python


def _home(requirements: Path, kept: Path) -> Path:
    made_from = hashlib.sha256(requirements.read_bytes() + sys.version.encode()).hexdigest()
    return kept.with_name(f"{kept.name}-{made_from[:12]}")


async def _run(*command: str) -> None:
    process = await asyncio.create_subprocess_exec(*command, stdout=PIPE, stderr=STDOUT)
    try:
        async with asyncio.timeout(INSTALL_TIMEOUT_SECONDS):
            printed, _ = await process.communicate()
    except TimeoutError:
        process.kill()
        raise Unmeasured(f"not installed within {INSTALL_TIMEOUT_SECONDS} s") from None
    if process.returncode:
        last_line = printed.decode(errors="replace").strip().rpartition("\n")[2]
        raise Unmeasured(f"not installed: {last_line}")
