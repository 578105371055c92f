"""The whole system, started by compose from the file as it is."""

import contextlib
import os
import secrets
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from subprocess import CompletedProcess

import httpx

from tests.image.engine import BUILD_SECONDS, Engine
from tests.processes import HANG_SECONDS, free_port
from tests.programs import needed

WORKERS = 2


@dataclass(frozen=True)
class System:
    """A project of compose under a name of its own."""

    engine: Engine
    image: str
    name: str
    port: int
    password: str

    @cached_property
    def compose_command(self) -> list[str]:
        """Compose is a part of today's clients, and was a program of its own."""
        plugin = ["compose", "--project-name", self.name]
        if self.engine.docker("compose", "version").returncode == 0:
            return [needed("docker"), *plugin]
        return [needed("docker-compose"), *plugin[1:]]

    def compose(self, *words: str, seconds: float = HANG_SECONDS) -> CompletedProcess[str]:
        given = {"API_PORT": str(self.port), "POSTGRES_PASSWORD": self.password}
        return self.engine.run([*self.compose_command, *words], seconds, given)

    def composed(self, *words: str, seconds: float = HANG_SECONDS) -> str:
        """Return what compose prints; it must succeed."""
        done = self.compose(*words, seconds=seconds)
        assert done.returncode == 0, f"{' '.join(words)}: {done.stdout[-4000:]}{done.stderr[-4000:]}"
        return done.stdout

    def containers(self, service: str) -> list[str]:
        """Return the ids of a service's containers, ended ones included."""
        return self.composed("ps", "--all", "--quiet", service).split()

    @property
    def network(self) -> str:
        return f"{self.name}_default"

    @property
    def database_url(self) -> str:
        """As this machine reaches it: the engine's network is a bridge here."""
        (container,) = self.containers("postgres")
        address = self.engine.inspect(container)["NetworkSettings"]["Networks"][self.network]["IPAddress"]
        return f"postgresql://postgres:{self.password}@{address}:5432/postgres"

    @property
    def api(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    async def write(self, name: str) -> str:
        """Create a collection by HTTP; return its id."""
        async with httpx.AsyncClient(timeout=HANG_SECONDS) as client:
            answer = await client.post(
                f"{self.api}/projects/p1/collections",
                headers={"User-ID": "owner"},
                json={"collection_name": name, "description": name},
            )
        assert answer.status_code == httpx.codes.OK, answer.text
        made: str = answer.json()["collection_id"]
        return made


@contextlib.contextmanager
def started(engine: Engine, image: str) -> Iterator[System]:
    """Start it as the documentation does, and take everything of it away at the end."""
    name = f"collection-sync-test-{os.getpid()}"
    system = System(engine, image, name, free_port(), secrets.token_hex(8))
    try:
        scale = f"worker={WORKERS}"
        system.composed("up", "--build", "--detach", "--scale", scale, seconds=BUILD_SECONDS)
        yield system
    finally:
        system.composed("down", "--volumes", "--remove-orphans")
