"""The instructions of the Dockerfile, read as its builder reads them."""

import json
import re
import shlex
from dataclasses import dataclass, field
from pathlib import Path

from tests.forked import ROOT

INSTRUCTIONS = {"FROM", "WORKDIR", "COPY", "RUN", "LABEL", "ENV", "USER", "EXPOSE", "HEALTHCHECK", "CMD"}
BASE_PATH = "/usr/local/bin:/usr/local/sbin:/usr/sbin:/usr/bin:/sbin:/bin"  # what python's images set


@dataclass
class Stage:
    """What one FROM begins: its instructions in order, each with the rest of its line."""

    base: str
    name: str
    steps: list[tuple[str, str]] = field(default_factory=list)

    def all_of(self, instruction: str) -> list[str]:
        return [rest for name, rest in self.steps if name == instruction]

    def the(self, instruction: str) -> str:
        (rest,) = self.all_of(instruction)
        return rest

    def command(self) -> list[str]:
        """Return the words of CMD, which must be a JSON list."""
        words: list[str] = json.loads(self.the("CMD"))
        return words

    def health_command(self) -> list[str]:
        words: list[str] = json.loads(self.the("HEALTHCHECK").partition("CMD ")[2])
        return words

    def environment(self) -> dict[str, str]:
        pairs = dict(word.split("=", 1) for word in shlex.split(" ".join(self.all_of("ENV"))))
        return {"PATH": BASE_PATH} | {
            name: value.replace("$PATH", BASE_PATH) for name, value in pairs.items()
        }

    def labels(self) -> dict[str, str]:
        return dict(word.split("=", 1) for word in shlex.split(" ".join(self.all_of("LABEL"))))


def read_stages(path: Path = ROOT / "Dockerfile") -> list[Stage]:
    """Read the stages; an instruction that is not known here is an error, so that nothing is passed over."""
    text = re.sub(r"^[ \t]*#.*\n", "", path.read_text(encoding="utf-8"), flags=re.MULTILINE)
    stages: list[Stage] = []
    for line in text.replace("\\\n", " ").splitlines():
        if not line.strip():
            continue
        name, _, rest = line.partition(" ")
        assert name in INSTRUCTIONS, line
        if name == "FROM":
            base, _, alias = rest.partition(" AS ")
            stages.append(Stage(base, alias))
        else:
            stages[-1].steps.append((name, re.sub(r"\s{2,}", " ", rest).strip()))
    return stages


def context_copies(stage: Stage) -> list[tuple[list[str], str]]:
    """List sources and destination of each COPY from the checkout."""
    words = [rest.split() for rest in stage.all_of("COPY") if not rest.startswith("--from")]
    return [(each[:-1], each[-1]) for each in words]
