"""The short form of the chaos suite: every brief fault once; and that it convicts who loses writes."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from deploy.local.postgres import Postgres
from deploy.local.valkey import Valkey
from tests.chaos.faults import FAULTS
from tests.chaos.run import Plan, carry_out
from tests.chaos.spells import crash_by_row
from tests.chaos.system import servers
from tests.chaos.users import STREAK

SEED = 4
PACE = 0.1
# Ten seconds of calm belong to the one that is left out: tests/worker/test_crashing_row.py has it.
BRIEF = [fault for fault in FAULTS if fault.inflict is not crash_by_row]


@pytest.fixture
def own_servers(tmp_path: Path) -> Iterator[tuple[Postgres, Valkey]]:
    with servers(tmp_path) as started:
        yield started


@pytest.mark.wide
@pytest.mark.slow
async def test_every_kind_of_fault_loses_nothing(
    own_servers: tuple[Postgres, Valkey], tmp_path: Path
) -> None:
    report = await carry_out(
        Plan(SEED, writes_per_second=20, pace=PACE, share_of_pairs=1.0, faults=BRIEF), tmp_path, *own_servers
    )

    assert [check for check in report.checks if not check.holds] == []
    assert {name for name, record in report.records.items() if record.times} == {
        fault.name for fault in BRIEF
    }
    # After each round, of two faults at most, each API has answered so many.
    assert sum(write.answered for write in report.writes) >= len(BRIEF) // 2 * 2 * STREAK


@pytest.mark.long  # `make twins` convicts both without chance
@pytest.mark.parametrize(
    ("kind", "twin", "killer"),
    [
        ("api", "tests.chaos.late_event", "API: SIGKILL"),
        ("worker", "tests.chaos.early_acknowledgement", "worker: SIGKILL"),
    ],
)
async def test_a_twin_that_loses_writes_is_convicted(
    kind: str, twin: str, killer: str, own_servers: tuple[Postgres, Valkey], tmp_path: Path
) -> None:
    faults = [fault for fault in FAULTS if fault.name == killer] * 2
    plan = Plan(SEED, writes_per_second=30, pace=0.2, faults=faults, instead={kind: ["-m", twin]})
    report = await carry_out(plan, tmp_path, *own_servers)

    against = {check.name for check in report.checks if not check.holds}
    assert "drift is 0 by the tests' own comparison" in against
    assert "`python -m worker.audit` finds none" in against
    assert ("no write is there by half" in against) == (kind == "api")
