"""Random histories of everything at once, and all lists after each step of them."""

import pytest
from hypothesis import settings
from hypothesis.errors import Flaky
from hypothesis.stateful import run_state_machine_as_test

from shared.phase.view import function
from shared.place import Place
from tests.model.readers import ReadingMachine
from tests.model.test_machine import CONVICTING, LONG, PROFILE
from tests.model.test_machine import world as world  # noqa: PLC0414 - a fixture
from tests.model.world import World
from tests.twins.replacing import replaced

PLACE = Place("public", "public", "public")


@pytest.mark.slow
@pytest.mark.timeout(7200 if LONG else 600)
@pytest.mark.parametrize("histories", [8, pytest.param(120, marks=pytest.mark.long)])
def test_after_any_history_lists_show_the_legacy_rows_and_the_links(histories: int, world: World) -> None:
    run_state_machine_as_test(
        ReadingMachine.of(world), settings=PROFILE if LONG else settings(PROFILE, max_examples=histories)
    )


@pytest.mark.slow
@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("AS event WHERE", "AS event WHERE false AND"),
        pytest.param("AS letter WHERE", "AS letter WHERE false AND", marks=pytest.mark.long),
        pytest.param("AND guard.project_id = project", "AND false", marks=pytest.mark.wide),
        pytest.param("AND NOT guard.is_deleted", "", marks=pytest.mark.long),
    ],
)
def test_the_readers_convict_a_view(old: str, new: str, world: World) -> None:
    world.execute(replaced(function(PLACE), old, new))
    with pytest.raises((AssertionError, Flaky)):
        run_state_machine_as_test(ReadingMachine.of(world), settings=CONVICTING)
