"""A Docker engine: the one that answers here, or one of our own that reaches no registry."""

import contextlib
import json
import os
import subprocess
import tempfile
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from deploy.local.children import Guise, tied_to_us
from tests.forked import ROOT
from tests.processes import HANG_SECONDS
from tests.programs import needed

BUILD_SECONDS = 600  # packages are downloaded
OF_ITS_OWN = Guise("ourselves, and what it mounts goes with it", namespace=("unshare", "--mount"))


@dataclass(frozen=True)
class Engine:
    """How its clients are started; `is_ours` where these tests started it, and it has no images yet."""

    is_ours: bool
    env: Mapping[str, str] = field(default_factory=lambda: dict(os.environ))

    def docker(self, *words: str, seconds: float = HANG_SECONDS) -> subprocess.CompletedProcess[str]:
        return self.run([needed("docker"), *words], seconds)

    def run(
        self, words: list[str], seconds: float, env: Mapping[str, str] | None = None
    ) -> subprocess.CompletedProcess[str]:
        """Run a client from the root of the checkout, as the documentation does."""
        return subprocess.run(
            words,
            cwd=ROOT,
            env={**self.env, **(env or {})},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
            timeout=seconds,
        )

    def said(self, *words: str, seconds: float = HANG_SECONDS) -> str:
        """Return what `docker WORDS` prints; it must succeed."""
        done = self.docker(*words, seconds=seconds)
        assert done.returncode == 0, f"{' '.join(words)}: {done.stdout[-2000:]}{done.stderr[-2000:]}"
        return done.stdout

    def inspect(self, thing: str) -> dict[str, Any]:
        (found,) = json.loads(self.said("inspect", thing))
        inspected: dict[str, Any] = found
        return inspected

    def health(self, container: str) -> str:
        """Return `starting`, `healthy` or `unhealthy`: what the engine found by the container's check."""
        state = self.inspect(container)["State"]
        assert state["Running"], self.said("logs", container)
        said: str = state["Health"]["Status"]
        return said

    def until(self, container: str, wanted: str) -> None:
        deadline = time.monotonic() + HANG_SECONDS
        while (health := self.health(container)) != wanted:
            assert time.monotonic() < deadline, f"{health}: {self.inspect(container)['State']['Health']}"
            time.sleep(0.2)


@contextlib.contextmanager
def an_engine() -> Iterator[Engine]:
    """Find the engine, or start one that keeps all it has in a directory which goes with it."""
    theirs = Engine(is_ours=False)
    if theirs.docker("info").returncode == 0:
        yield theirs
        return
    assert os.geteuid() == 0, "no Docker engine answers, and only root can start one"
    with tempfile.TemporaryDirectory() as directory:
        socket = f"unix://{directory}/socket"
        places = [
            f"--data-root={directory}/data",
            f"--exec-root={directory}/exec",
            f"--pidfile={directory}/pid",
        ]
        # What they are where nobody may raise them: machines that are containers themselves.
        limits = ["--oom-score-adjust=0", "--default-ulimit=nofile=4096:4096"]
        command = tied_to_us([needed("dockerd"), f"--host={socket}", *places, *limits], "TERM", OF_ITS_OWN)
        ours = Engine(is_ours=True, env={**os.environ, "DOCKER_HOST": socket})
        log = Path(directory) / "log"
        with (
            log.open("wb") as said,
            # Of a session of its own: an interrupt is for us alone, who clear up by it.
            subprocess.Popen(command, stdout=said, stderr=said, start_new_session=True) as daemon,
        ):
            try:
                while ours.docker("info").returncode != 0:
                    assert daemon.poll() is None, log.read_text()[-2000:]
                    time.sleep(0.1)
                yield ours
            finally:
                daemon.terminate()
                daemon.wait(HANG_SECONDS)
