"""The short form of the chaos suite: every kind of fault once; and that it convicts who loses writes."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from deploy.local.postgres import Postgres
from deploy.local.valkey import Valkey
from tests.chaos.faults import FAULTS
from tests.chaos.run import Plan, carry_out
from tests.chaos.system import servers

pytestmark = [pytest.mark.slow, pytest.mark.timed]

SEED = 4


@pytest.fixture
def own_servers(tmp_path: Path) -> Iterator[tuple[Postgres, Valkey]]:
    with servers(tmp_path) as started:
        yield started


async def test_every_kind_of_fault_loses_nothing(
    own_servers: tuple[Postgres, Valkey], tmp_path: Path
) -> None:
    report = await carry_out(
        Plan(SEED, writes_per_second=30, pace=0.2, share_of_pairs=1.0), tmp_path, *own_servers
    )

    assert [check for check in report.checks if not check.holds] == []
    assert {name for name, record in report.records.items() if record.times} == {
        fault.name for fault in FAULTS
    }
    assert sum(write.acknowledged for write in report.writes) > 200


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
