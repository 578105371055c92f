"""One wait for all: how often it looks, what it calls a stall, when it ends."""

import asyncio
from collections.abc import Awaitable, Callable, Iterator
from types import SimpleNamespace

import pytest

from worker.settled import (
    LONGEST_REST_SECONDS,
    RESTS_PER_LOOK,
    SHORTEST_REST_SECONDS,
    STALL_SECONDS,
    until_settled,
)


class Clock:
    """The time of the wait, which goes on while it looks and rests."""

    def __init__(self) -> None:
        self.now = 0.0
        self.rests: list[float] = []

    def monotonic(self) -> float:
        return self.now

    async def rest(self, interrupted: asyncio.Event, seconds: float) -> None:
        self.rests.append(seconds)
        if not interrupted.is_set():
            self.now += seconds

    def counting(self, pending: Iterator[int], seconds: float = 0.0) -> Callable[[], Awaitable[int]]:
        async def count() -> int:
            self.now += seconds
            return next(pending)

        return count


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr("worker.settled.time", SimpleNamespace(monotonic=clock.monotonic))
    monkeypatch.setattr("worker.settled.rest", clock.rest)
    return clock


@pytest.mark.parametrize(
    ("looking", "resting"),
    [(0.001, SHORTEST_REST_SECONDS), (0.1, RESTS_PER_LOOK * 0.1), (10, LONGEST_REST_SECONDS)],
)
async def test_counting_takes_a_tenth_of_the_time_at_most(
    clock: Clock, looking: float, resting: float
) -> None:
    count = clock.counting(iter([2, 1, 0]), looking)
    assert await until_settled(count, interrupted=asyncio.Event())
    assert clock.rests == pytest.approx([resting, resting])


async def test_a_stall_is_reported_each_time_five_seconds_pass_in_which_the_number_does_not_fall(
    clock: Clock,
) -> None:
    stalls: list[tuple[float, int]] = []
    stood = [9] * round(1.5 * STALL_SECONDS / SHORTEST_REST_SECONDS)
    await until_settled(
        clock.counting(iter([*stood, 8, *stood, 0])),
        interrupted=asyncio.Event(),
        on_stall=lambda pending: stalls.append((clock.now, pending)),
    )
    assert [pending for _, pending in stalls] == [9, 9]
    first, second = (at for at, _ in stalls)
    assert first == pytest.approx(STALL_SECONDS, abs=2 * SHORTEST_REST_SECONDS)
    assert second - first == pytest.approx(1.5 * STALL_SECONDS, abs=4 * SHORTEST_REST_SECONDS)


async def test_it_ends_unsettled_after_the_longest_stall_and_on_an_interrupt(clock: Clock) -> None:
    seen: list[float] = []
    assert not await until_settled(
        clock.counting(iter(lambda: 7, None)),
        interrupted=asyncio.Event(),
        watch=lambda _pending, still_seconds: seen.append(still_seconds),
        longest_stall_seconds=1,
    )
    assert seen == sorted(seen)
    assert seen[-1] == pytest.approx(1, abs=SHORTEST_REST_SECONDS)

    interrupted = asyncio.Event()
    interrupted.set()
    assert not await until_settled(clock.counting(iter([7])), interrupted=interrupted)
    assert await until_settled(clock.counting(iter([0])), interrupted=interrupted)


async def test_without_patience_a_fault_of_the_database_is_the_caller_s(clock: Clock) -> None:
    async def count() -> int:
        raise ConnectionRefusedError

    with pytest.raises(ConnectionRefusedError):
        await until_settled(count, interrupted=asyncio.Event())
    assert clock.rests == []
