"""The image as a directory: the Dockerfile's steps, replayed on no more than its base image has."""

import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from tests.deploy.dockerfile import BASE_PATH, Stage, read_stages
from tests.deploy.replay import FIRST_ID
from tests.processes import ROOT

REPLAY = ROOT / "tests" / "deploy" / "replay.py"
PROGRAMS = ("/bin", "/sbin", "/usr/bin", "/usr/sbin")
LINKS = {"bin": "usr/bin", "sbin": "usr/sbin", "lib": "usr/lib", "lib64": "usr/lib64"}
FROM_HERE = ("/etc/resolv.conf", "/etc/hosts", "/etc/nsswitch.conf", "/etc/login.defs", "/etc/ld.so.cache")
ACCOUNTS = {
    "passwd": "root:x:0:0:root:/root:/bin/sh\n",
    "group": "root:x:0:\n",
    "shadow": "root:*:19000:0:99999:7:::\n",
    "gshadow": "root:*::\n",
}
# How this machine reaches the package index; an engine hands such things to its builds as well.
OF_THE_NETWORK = (
    "PIP_CERT",
    "PIP_INDEX_URL",
    "PIP_DEFAULT_TIMEOUT",
    "SSL_CERT_FILE",
    "https_proxy",
    "http_proxy",
)


def interpreter() -> Path:
    """Return where a Python of the Dockerfile's version is installed, or else the one that runs this."""
    version = ".".join(read_stages()[0].base.partition(":")[2].split(".")[:2])
    beside = sorted(Path(sys.base_prefix).parent.glob(f"{version}.*"))  # where pyenv puts them
    return (beside or [Path(sys.base_prefix)])[-1]


def required_programs() -> list[Path]:
    """List the programs of the packages that every Debian has, such as the base image."""
    form = "${Package} ${Priority}\n"
    listed = subprocess.run(
        ["dpkg-query", "-W", "-f", form],  # noqa: S607 - Debian's, wherever it is
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    packages = [line.split()[0] for line in listed.splitlines() if line.endswith(" required")]
    files = subprocess.run(
        ["dpkg", "-L", *packages],  # noqa: S607
        capture_output=True,
        text=True,
        check=True,
    ).stdout.splitlines()
    found = [Path(name) for name in files if str(Path(name).parent) in PROGRAMS]
    return [path for path in found if path.is_file()] + [Path("/bin/sh")]


def make_base(tree: Path) -> None:
    """Lay out what stands for the base image: those programs, no compiler, no package of ours."""
    for name, target in LINKS.items():
        (tree / target).mkdir(parents=True, exist_ok=True)
        (tree / name).symlink_to(target)
    for name in ("etc", "root", "proc", "dev", "tmp", "var/log", "usr/local"):
        (tree / name).mkdir(parents=True)
    (tree / "tmp").chmod(0o1777)
    for program in required_programs():
        place = tree / str(program).lstrip("/")
        if not place.exists():
            shutil.copy(program, place)
    for loader in Path("/lib64").glob("ld-linux*"):
        shutil.copy(loader, tree / "usr/lib64")
    for name, text in ACCOUNTS.items():
        (tree / "etc" / name).write_text(text, encoding="ascii")
    for source in map(Path, FROM_HERE):
        if source.exists():
            shutil.copy(source, tree / "etc")
    shutil.copytree("/etc/ssl/certs", tree / "etc/ssl/certs")
    give_away(tree)


def give_away(*places: Path) -> None:
    """Let all of it belong to the root of the tree."""
    subprocess.run(["chown", "-hR", f"{FIRST_ID}:{FIRST_ID}", *places], check=True)  # noqa: S607


@dataclass(frozen=True)
class Image:
    """A built image, and the words that run a command in a container of it."""

    tree: Path
    python: Path
    stage: Stage

    def words(self, *command: str, volumes: tuple[str, ...] = ()) -> list[str]:
        """Return the arguments for Python that become the command: as the user, on a read-only tree."""
        mounted = [word for volume in volumes for word in ("--volume", volume)]
        user = self.stage.the("USER").partition(":")[0]
        where = ["--workdir", self.stage.all_of("WORKDIR")[-1]]
        return [*self._replay("--user", user, "--read-only", *where, *mounted), "--", *command]

    def environment(self, **more: str) -> dict[str, str]:
        return {"HOME": "/nonexistent"} | self.stage.environment() | more

    def _replay(self, *options: str) -> list[str]:
        return [str(REPLAY), str(self.tree), "--python", str(self.python), *options]

    def build(self, context: Path, stages: dict[str, Path]) -> None:
        """Do what the instructions of this stage say, in their order.

        Raises:
            AssertionError: a step failed; the message is what it printed.

        """
        workdir = "/"
        for name, rest in self.stage.steps:
            if name == "WORKDIR":
                workdir = rest
                (self.tree / rest.lstrip("/")).mkdir(parents=True, exist_ok=True)
                give_away(self.tree / rest.lstrip("/"))
            elif name == "COPY":
                self._copy(rest.split(), workdir, context, stages)
            elif name == "RUN":
                self._run(rest, workdir)

    def _copy(self, words: list[str], workdir: str, context: Path, stages: dict[str, Path]) -> None:
        origin = context
        if words[0].startswith("--from="):
            origin = stages[words.pop(0).removeprefix("--from=")]
        *sources, destination = words
        target = self.tree / os.path.join(workdir, destination).lstrip("/")  # noqa: PTH118 - a path of the tree
        for source in sources:
            found = origin / source.lstrip("/")
            if found.is_dir():
                shutil.copytree(found, target, symlinks=True, dirs_exist_ok=True)
                give_away(target)
            else:
                give_away(Path(shutil.copy(found, target)))

    def _run(self, script: str, workdir: str) -> None:
        kept = {name: os.environ[name] for name in OF_THE_NETWORK if name in os.environ}
        environment = {"PATH": BASE_PATH, "HOME": "/root"} | kept
        command = [*self._replay("--user", "0", "--workdir", workdir), "--", "/bin/sh", "-c", script]
        done = subprocess.run(
            [sys.executable, *command],
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
        )
        assert done.returncode == 0, f"{script}\n{done.stdout}"


def build_context(directory: Path) -> Path:
    """Copy what .dockerignore lets through, as the builder would send it."""
    lines = (ROOT / ".dockerignore").read_text(encoding="utf-8").split()
    for name in (line.removeprefix("!") for line in lines if line.startswith("!")):
        place = directory / name
        if (ROOT / name).is_dir():
            shutil.copytree(ROOT / name, place, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(ROOT / name, place)
    return directory


def build(directory: Path) -> Image:
    """Build the image in an empty directory, stage by stage; return its last."""
    python = interpreter()
    context = directory / "context"
    context.mkdir()
    build_context(context)
    base = directory / "base"
    base.mkdir()
    make_base(base)
    trees: dict[str, Path] = {}
    for number, stage in enumerate(read_stages()):
        tree = directory / f"stage {number}"
        subprocess.run(["cp", "-a", base, tree], check=True)  # noqa: S607
        image = Image(tree, python, stage)
        image.build(context, trees)
        trees[stage.name] = tree
    return image
