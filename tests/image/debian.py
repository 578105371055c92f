"""The images that Dockerfile and compose file name, made of Debian's packages under the very same names."""

import subprocess
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from tests.deploy.dockerfile import read_stages
from tests.deploy.test_container import COMPOSE
from tests.image.engine import BUILD_SECONDS, Engine
from tests.programs import needed

SERVERS = Path(__file__).parent / "servers"
SERVERS_SUITE = "bookworm"  # which has PostgreSQL 15 and Redis 7, as the compose file
# What pip trusts on this machine, it trusts in the build.
CERTIFICATES = "/etc/ssl/certs/ca-certificates.crt"


def make_images(engine: Engine) -> None:
    """Make the base image of Python, and the images of PostgreSQL and Redis."""
    python = read_stages()[0].base
    python_hooks = ["ln -s python3 $1/usr/bin/python", f"copy-in {CERTIFICATES} {Path(CERTIFICATES).parent}"]
    with ThreadPoolExecutor() as pool:
        servers = pool.submit(
            import_root, engine, "servers-of-debian", SERVERS_SUITE, "postgresql-15,redis-server"
        )
        suite = python.rpartition("-")[2]
        import_root(engine, python, suite, "ca-certificates,python3-pip,python3-venv", python_hooks)
        servers.result()
    for name in ("postgres", "redis"):
        image = COMPOSE[name]["image"]
        engine.said("build", "--quiet", "--target", name, "--tag", image, str(SERVERS), seconds=BUILD_SECONDS)


def import_root(
    engine: Engine, image: str, suite: str, packages: str, hooks: list[str] | None = None
) -> None:
    """Import a root directory of the suite's essential packages, these, and what they depend on."""
    hooked = [f"--customize-hook={hook}" for hook in hooks or []]
    words = [
        needed("mmdebstrap"),
        "--quiet",
        "--variant=minbase",
        f"--include={packages}",
        *hooked,
        suite,
        "-",
    ]
    with subprocess.Popen(words, stdout=subprocess.PIPE) as made:
        assert made.stdout is not None
        imported = subprocess.run(
            [needed("docker"), "import", "-", image], stdin=made.stdout, env=engine.env, check=False
        )
        made.stdout.close()
    assert (made.returncode, imported.returncode) == (0, 0)
