"""Whatever happens, in any order: after a drain the target shows what the legacy table holds.

In CI the examples are the same each time. `pytest tests/model --hypothesis-profile=long` plays new ones,
for about half an hour; what it prints at a failure are the steps that lead there.
"""

from collections.abc import Iterator

import pytest
from hypothesis import settings
from hypothesis.stateful import run_state_machine_as_test

from tests.model.machine import Machine
from tests.model.world import World, opened

LONG = settings.get_current_profile_name() == "long"
N = settings.get_current_profile_name()
PROFILE = settings.get_profile(N if N in ("quick", "long") else "model")


@pytest.fixture
def world(database_url: str) -> Iterator[World]:
    with opened(database_url) as world:
        yield world


@pytest.mark.slow
@pytest.mark.timeout(7200 if LONG else 180)
def test_after_any_history_the_target_shows_what_the_legacy_table_holds(world: World) -> None:
    run_state_machine_as_test(Machine.of(world), settings=PROFILE)
