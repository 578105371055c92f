"""The comparison with peers: pinned, the same work for all, wrong rows seen, and nobody absent in silence."""

import itertools
import re
import sys
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path

import asyncpg
import pytest

from benchmarks.cases import peers
from benchmarks.figures import Beside, Figure
from benchmarks.peers import environments
from benchmarks.peers.environments import REQUIREMENTS, Unmeasured, python_for
from benchmarks.peers.roles import Place, role
from benchmarks.peers.samples import Measure, Samples
from benchmarks.peers.systems.changes import PROJECT, REST, Change, apply, hot, mixed
from benchmarks.peers.systems.with_asyncpg import write_row
from benchmarks.peers.turns import PREPARE, WRONG
from tests.benchmarks.measured import measured

NAMES = sorted({system.environment for system in peers.SYSTEMS if system.environment})
PACKAGE = re.compile(r"[a-z0-9-]+==[\w.]+( ; [\w.]+ .+?)? \\")
HASH = re.compile(r"    --hash=sha256:[0-9a-f]{64}( \\)?")


def packages(text: str) -> list[list[str]]:
    """Return the lines of each package."""
    return [block.splitlines() for block in re.split(r"\n(?! )", text.strip())]


@pytest.mark.parametrize("name", NAMES)
def test_a_peer_and_all_it_needs_is_pinned_with_hashes_and_no_host_is_named(name: str) -> None:
    pinned = (REQUIREMENTS / f"{name}.txt").read_text()
    for first, *hashes in packages(pinned):
        assert PACKAGE.fullmatch(first)
        assert hashes
        assert all(HASH.fullmatch(line) for line in hashes)
    asked = (REQUIREMENTS / f"{name}.in").read_text()
    [(package, version)] = re.findall(r"(\S+)==(\S+)", asked)
    assert f"{package.partition('[')[0]}=={version} " in pinned
    assert "/" not in asked + pinned


def per_key(plan: Sequence[Change]) -> list[list[Change]]:
    changes: dict[str, list[Change]] = defaultdict(list)
    for change in plan:
        changes[change.collection_id].append(change)
    return list(changes.values())


def test_every_system_is_given_the_same_changes() -> None:
    assert list(mixed(500)) == list(mixed(1_000))[:500]
    assert list(hot(500, 20)) == list(hot(500, 20))


def test_each_collection_begins_with_its_creation_and_ends_with_a_deletion_if_it_has_one() -> None:
    for plan in (list(mixed(2_000)), list(hot(500, 20))):
        for changes in per_key(plan):
            kinds = [change.kind for change in changes]
            assert kinds[0] == "created"
            assert set(kinds[1:-1]) <= {"updated"}
            assert "created" not in kinds[1:]


def test_steady_writes_to_a_collection_are_apart() -> None:
    for changes in per_key(list(mixed(2_000))):
        numbers = [change.number for change in changes]
        assert all(later - earlier >= REST for earlier, later in itertools.pairwise(numbers))


@pytest.mark.parametrize(("lost", "wrong"), [(None, 0), ("created", 1), ("updated", 1), ("deleted", 1)])
async def test_an_event_that_is_lost_leaves_a_row_that_counts_as_wrong(
    sql: asyncpg.Connection, lost: str | None, wrong: int
) -> None:
    for statement in PREPARE:
        await sql.execute(statement, PROJECT)
    plan = [change for changes in per_key(list(hot(40, 20))) for change in changes]
    last = {change.kind: change for changes in per_key(plan) for change in changes[-1:]}
    for change in plan:
        event = await write_row(sql, change)
        if lost is None or change != last[lost]:
            await apply(sql, event)
    assert await sql.fetchval(WRONG) == wrong


def test_the_speed_of_a_drain_is_that_from_its_first_commit_to_its_last() -> None:
    batches = [10.0] * 500 + [10.1] * 500 + [10.2] * 250
    assert peers.events_per_second(batches) == pytest.approx(750 / 0.2)
    singles = [10 + number / 100 for number in range(101)]
    assert peers.events_per_second(singles) == pytest.approx(100)


def test_ours_is_put_beside_the_best_peer_of_each_repeat_and_the_loop_by_hand_is_no_peer() -> None:
    samples = Samples({"ours": False, "by hand": False, "one": True, "other": True}, print)
    for taken in ((30, 99, 10, 5), (30, 99, 5, 6)):
        for system, speed in zip(samples.peers, taken, strict=True):
            samples.take(system, {"drain": speed})
    best, ours, *others, _absent = samples.figures([Measure("drain", "events/s", max, at_least=3)], 2)
    assert best == Figure("drain: best peer", "events/s", [10, 6])
    assert ours == Figure("drain: ours", "events/s", [30, 30], [Beside("drain: best peer", at_least=3)])
    assert [figure.beside for figure in others] == [(), (), ()]


def test_a_peer_that_is_absent_is_told_at_once_and_is_a_missed_target() -> None:
    told: list[str] = []
    samples = Samples({"ours": False, "one": True}, told.append)
    samples.take("ours", {"drain": 30})
    samples.leave_out("one", "drain", why=Unmeasured("not installed: no such package"))
    assert samples.is_absent("one", "drain")
    [ours, absent] = samples.figures([Measure("drain", "events/s")], 1)
    assert ours.name == "drain: ours"
    [verdict] = measured(absent).verdicts()
    assert not verdict.is_met
    assert told == ["ABSENT: one, drain: not installed: no such package"]


async def test_an_environment_that_could_not_be_made_is_not_taken_for_one_the_next_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    broken = tmp_path / "python"
    broken.write_text("#!/bin/sh\nmkdir -p $3\necho first\necho no space left\nexit 1\n")
    broken.chmod(0o755)
    monkeypatch.setattr(environments, "KEPT", tmp_path)
    monkeypatch.setattr(sys, "executable", str(broken))
    for _ in range(2):
        with pytest.raises(Unmeasured, match="not installed: no space left"):
            await python_for(NAMES[0])


async def test_a_process_that_ends_is_no_answer_and_says_why(tmp_path: Path) -> None:
    place = Place("postgresql://127.0.0.1:1/nothing", tmp_path)
    async with role(place, Path(sys.executable), "no_such_system", "write") as writer:
        with pytest.raises(Unmeasured, match=r"No module named .*no_such_system"):
            await writer.ask(do="describe")
