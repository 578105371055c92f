"""All schedules of two workers and three events of one collection, on the real PostgreSQL.

The numbers of schedules are exact: a search that leaves any out fails. A change of the relay's statements
changes them; the failure shows the new number. `pytest tests/model --hypothesis-profile=long` plays all
scenes as well, with every order, split, lane, poison and late commit; it only prints their numbers.
"""

import contextlib
import itertools
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from math import comb

import asyncpg
import pytest
from hypothesis import settings

from tests.legacy_rows import seed
from tests.model.explorer import Actor, Schedule, StuckError, explore
from tests.model.scenes import Scene, orders
from tests.model.stage import Stage, opened
from tests.model.stepping import BELIEVING_CLAIM, SteppedConnection
from tests.twins.relay import UPSERT, guard_without_tombstone
from tests.twins.replacing import replaced
from worker.relay import apply

LONG = settings.get_current_profile_name() == "long"
UPDATE_DELETE_MOVE = ("update", "delete", "move")
GUARD_RETURNS = "RETURNING version, is_deleted, is_deleted OR previous_project_id IS NOT NULL, row_id"

LIVING = "id IN (SELECT version FROM passed WHERE NOT is_deleted)"
ALL_IN_ONE = f"""
    WITH passed AS ({replaced(apply.GUARD, GUARD_RETURNS, "RETURNING guard.*")}),
    retired AS (
        DELETE FROM project_collections AS target USING passed
        WHERE target.collection_id = passed.collection_id AND (
            target.project_id = previous_project_id OR target.project_id = passed.project_id AND is_deleted
        )
    ),
    written AS ({replaced(UPSERT, "id = ANY($1)", LIVING)})
    SELECT version FROM passed
"""  # noqa: S608 - made of constants

LARGEST = "the newest refused by PostgreSQL"
FAMILIES = {
    "one batch of two, one of one": ([Scene(order) for order in orders()], 254),
    "a collection not seen before": ([Scene(order, known=False) for order in orders()], 216),
    "the oldest claimed last": ([Scene(order, bulk=1) for order in orders()], 264),
    "three batches": ([Scene(UPDATE_DELETE_MOVE, batches=((1, 1), (1,)))], 270),
    "the newest committed late": ([Scene(UPDATE_DELETE_MOVE, late=3)], 328),
    "the newest malformed": ([Scene(UPDATE_DELETE_MOVE, poison=(3, "malformed"))], 146),
    LARGEST: ([Scene(UPDATE_DELETE_MOVE, poison=(3, "refused"))], 526),
}


@pytest.fixture
async def stage(
    database_url: str, sql: asyncpg.Connection, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[Stage]:
    await seed(sql)
    monkeypatch.setattr("worker.relay.claim.CLAIM", BELIEVING_CLAIM)
    async with opened(database_url, sql) as stage:
        yield stage


@pytest.mark.slow
@pytest.mark.parametrize(
    "family",
    [
        pytest.param(name, marks=pytest.mark.long if name == LARGEST else pytest.mark.wide if n > 0 else [])
        for n, name in enumerate(FAMILIES)
    ],
)
async def test_no_schedule_of_two_workers_leaves_anything_wrong(family: str, stage: Stage) -> None:
    scenes, number = FAMILIES[family]
    played = {str(scene): await stage.play(scene) for scene in scenes}
    assert sum(played.values()) == number, played


async def test_when_a_transaction_begins_makes_no_difference(stage: Stage) -> None:
    assert await stage.play(Scene(UPDATE_DELETE_MOVE), every_step=True) == 154


if LONG:

    @pytest.mark.timeout(1800)
    @pytest.mark.parametrize("number", range(168))
    async def test_no_schedule_of_any_scene_leaves_anything_wrong(number: int, stage: Stage) -> None:
        scene = list(all_scenes())[number]
        schedules = await stage.play(scene)
        print(f"{schedules:6} {scene}")  # noqa: T201 - to be seen with -s
        assert schedules > 0


async def all_in_one_statement(connection: asyncpg.Connection, ids: Sequence[int]) -> set[int]:
    """Apply as `worker.relay.apply.apply` does, but on one snapshot: older than the lock it waited for."""
    return {row["version"] for row in await connection.fetch(ALL_IN_ONE, ids)}


def without_comparison(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(apply, "GUARD", replaced(apply.GUARD, "WHERE guard.version < excluded.version", ""))


def without_tombstone(patch: pytest.MonkeyPatch) -> None:
    patch.setattr("worker.relay.settle.apply", guard_without_tombstone)


def in_one_statement(patch: pytest.MonkeyPatch) -> None:
    patch.setattr("worker.relay.settle.apply", all_in_one_statement)


@pytest.mark.parametrize("twin", [without_comparison, without_tombstone, in_one_statement])
async def test_the_search_convicts_a_guard(
    twin: Callable[[pytest.MonkeyPatch], None], stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    twin(monkeypatch)
    schedule, wrong = await first_drift(stage)
    print(schedule, wrong)  # noqa: T201 - to be seen with -s


async def first_drift(stage: Stage) -> tuple[Schedule, str]:
    """Return the first schedule that leaves the target wrong, and how."""
    for order, known in itertools.product(orders(), (True, False)):
        async with contextlib.aclosing(stage.judged(Scene(order, known=known))) as judged:
            async for schedule, wrong in judged:
                for fault in wrong:
                    if fault.startswith("target:"):
                        return schedule, fault
    pytest.fail("no schedule left the target wrong")


def stepping(name: str, connection: SteppedConnection, *statements: str) -> Actor:
    """Make an actor that sends these statements."""

    async def work() -> None:
        for statement in statements:
            await connection.execute(statement)

    return Actor(name, connection, work)


async def test_the_search_goes_through_every_order_of_steps_that_do_not_wait(stage: Stage) -> None:
    one, two = stage.connections
    actors = [stepping("X", one, *["SELECT 1"] * 4), stepping("Y", two, *["SELECT 2"] * 3)]
    seen = [str(schedule) async for schedule in explore(actors, stage.sql, nothing)]
    assert len(seen) == len(set(seen)) == comb(7, 3)


async def test_the_search_lets_a_waiting_step_wait_and_goes_on_with_the_other(stage: Stage) -> None:
    one, two = stage.connections
    lock = "SELECT pg_advisory_xact_lock(7)"
    first = stepping("X", one, "BEGIN", lock, "SELECT 1", "COMMIT")
    actors = [first, stepping("Y", two, "BEGIN", lock, "COMMIT")]
    played = [str(schedule) async for schedule in explore(actors, stage.sql, nothing)]
    seen = [schedule.replace(lock, "lock") for schedule in played]
    assert len(seen) == len(set(seen))
    assert "X:BEGIN Y:BEGIN X:lock Y:lock… X:SELECT 1 X:COMMIT Y:COMMIT" in seen
    assert len(seen) == 19  # of 35: behind the other's lock nobody moves until it is free


async def test_the_search_finds_a_deadlock(stage: Stage) -> None:
    one, two = stage.connections
    first, second = "SELECT pg_advisory_xact_lock(1)", "SELECT pg_advisory_xact_lock(2)"
    actors = [
        stepping("X", one, "BEGIN", first, second, "COMMIT"),
        stepping("Y", two, "BEGIN", second, first, "COMMIT"),
    ]
    with pytest.raises(StuckError):
        async for _ in explore(actors, stage.sql, nothing):
            pass


async def nothing() -> None:
    """Every schedule begins from the same state already."""


def all_scenes() -> Iterator[Scene]:
    """Yield every scene of the long form."""
    for order, known in itertools.product(orders(), (True, False)):
        for split in (((2,), (1,)), ((1, 1), (1,))):
            yield Scene(order, known, split)
        yield Scene(order, known, ((1,), (1,)))
        for number in (1, 2, 3):
            yield Scene(order, known, bulk=number)
            yield Scene(order, known, poison=(number, "malformed"))
            yield Scene(order, known, poison=(number, "refused"))
        for number in (1, 3):
            yield Scene(order, known, late=number)
