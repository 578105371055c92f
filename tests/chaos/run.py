"""A run of the suite, from the start of the servers to the verdict."""

import asyncio
import random
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from deploy.local.postgres import Postgres
from deploy.local.valkey import Valkey
from tests.chaos.fault import Fault
from tests.chaos.faults import FAULTS
from tests.chaos.storm import SHARE_OF_PAIRS, Record, Storm
from tests.chaos.system import running_system
from tests.chaos.users import Write, users
from tests.chaos.verdict import Check, judge_database, judge_processes

CALM_SECONDS = 1.0


@dataclass(frozen=True)
class Plan:
    """What to do: the same seed draws the same faults in the same order.

    seconds: for how long, or None to inflict every kind once.
    pace: a factor on how long faults and pauses last.
    instead: see `running_system`.
    """

    seed: int
    seconds: float | None = None
    writes_per_second: int = 50
    pace: float = 1.0
    share_of_pairs: float = SHARE_OF_PAIRS
    faults: Sequence[Fault] = FAULTS
    instead: Mapping[str, Sequence[str]] = field(default_factory=dict)


@dataclass(frozen=True)
class Report:
    """What a run did and found. Seconds are those of the storm, the rate is that of its end."""

    plan: Plan
    seconds: float
    writes_per_second: int
    records: Mapping[str, Record] = field(default_factory=dict)
    writes: Sequence[Write] = ()
    checks: Sequence[Check] = ()

    @property
    def is_clean(self) -> bool:
        return all(check.holds for check in self.checks)


def _say_nothing(_text: str) -> None:
    pass


async def carry_out(
    plan: Plan,
    directory: Path,
    postgres: Postgres,
    valkey: Valkey,
    tell: Callable[[str], None] = _say_nothing,
) -> Report:
    """Let the storm loose on a system of our own, on these running servers, and judge what it leaves."""
    dice, users_dice = random.Random(plan.seed), random.Random(plan.seed + 1)  # noqa: S311 - to be repeated
    tell("starting two APIs and two workers")
    async with (
        running_system(directory, postgres, valkey, plan.instead) as system,
        users(system.urls, users_dice, plan.writes_per_second) as crowd,
    ):
        storm = Storm(system, crowd, dice, plan.pace, plan.faults, tell=tell)
        async with crowd.at_work():
            await asyncio.sleep(CALM_SECONDS)
            began = time.monotonic()
            until = None if plan.seconds is None else began + plan.seconds
            await storm.rage(until, share_of_pairs=plan.share_of_pairs)
            seconds = time.monotonic() - began
        tell("waiting until all is settled, then comparing")
        checks = await judge_database(system, crowd.writes)
    checks += [judge_recoveries(storm.records), *judge_processes(system)]
    return Report(plan, seconds, crowd.per_second, storm.records, crowd.writes, checks)


def judge_recoveries(records: Mapping[str, Record]) -> Check:
    """Say whether writes and lag recovered after each fault."""
    against = [
        f"{name}: {record.unrecovered} times" for name, record in records.items() if record.unrecovered
    ]
    return Check(
        "after every fault writes and lag recovered", sum(r.times for r in records.values()), against
    )
