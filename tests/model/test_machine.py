"""Whatever happens, in any order: after a drain the target shows what the legacy table holds.

In CI the histories are the same each time. `pytest tests/model --hypothesis-profile=long` plays new ones,
for about half an hour; what it prints at a failure are the shortest steps it found that lead there.
"""

from collections.abc import Callable, Iterator

import pytest
from hypothesis import Phase, settings
from hypothesis.errors import Flaky
from hypothesis.stateful import run_state_machine_as_test

from tests.model.machine import Machine
from tests.model.world import World, opened
from tests.twins.relay import guard_without_tombstone
from tests.twins.replacing import replaced
from worker.relay import apply

LONG = settings.get_current_profile_name() == "long"
PROFILE = settings.get_profile("long" if LONG else "model")
# What is wrong on purpose need not be told in the fewest steps.
# The first history that convicts ends the search; some twins show only in a race, so it may take long.
CONVICTING = settings(PROFILE, phases=[Phase.generate], max_examples=400)


@pytest.fixture
def world(database_url: str) -> Iterator[World]:
    with opened(database_url) as world:
        yield world


@pytest.mark.timeout(7200 if LONG else 600)  # a failure is shortened before it is told
@pytest.mark.parametrize("histories", [12, pytest.param(120, marks=pytest.mark.long)])
def test_after_any_history_the_target_shows_what_the_legacy_table_holds(histories: int, world: World) -> None:
    run_state_machine_as_test(
        Machine.of(world), settings=PROFILE if LONG else settings(PROFILE, max_examples=histories)
    )


def test_a_link_to_the_project_where_a_collection_was_deleted_outlives_its_return_elsewhere(
    world: World,
) -> None:
    machine = Machine.of(world)()
    machine.begin_in_sync()
    machine.delete("id-1")
    machine.drain([500], by_lane=False)
    machine.move_by_hand("id-1", "p2")
    machine.link("id-1", "p1", 7)
    machine.rewrite("id-1", "back", "p2", is_active=True)
    machine.drain([500], by_lane=False)
    machine.teardown()


def without_guard(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(apply, "GUARD", replaced(apply.GUARD, "WHERE guard.version < excluded.version", ""))


def without_tombstone(patch: pytest.MonkeyPatch) -> None:
    patch.setattr("worker.relay.settle.apply", guard_without_tombstone)


def blind_to_moves(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(apply, "RETIRE_ROWS", replaced(apply.RETIRE_ROWS, ", (guard.previous_project_id)", ""))


def with_everything_overwritten(patch: pytest.MonkeyPatch) -> None:
    overwriting = replaced(apply.UPDATE_ROWS, "AS target SET", "AS target SET tags = '[]',")
    patch.setattr(apply, "UPDATE_ROWS", overwriting)


@pytest.mark.parametrize(
    "twin",
    [
        pytest.param(without_guard, marks=pytest.mark.long),  # the search convicts it without chance
        pytest.param(without_tombstone, marks=pytest.mark.wide),
        pytest.param(blind_to_moves, marks=pytest.mark.wide),
        with_everything_overwritten,
    ],
)
def test_the_machine_convicts(
    twin: Callable[[pytest.MonkeyPatch], None], world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    twin(monkeypatch)
    # A race that turns out otherwise when it is run again is a conviction as well.
    with pytest.raises((AssertionError, Flaky)) as convicted:
        run_state_machine_as_test(Machine.of(world), settings=CONVICTING)
    print(convicted.value)  # noqa: T201 - to be seen with -s
