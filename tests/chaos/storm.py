"""One fault or two at a time, drawn from a deck, each followed by a pause in which all must recover."""

import asyncio
import contextlib
import random
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

from tests.chaos.fault import Fault
from tests.chaos.faults import FAULTS
from tests.chaos.system import System
from tests.chaos.users import Users

RECOVERY_PATIENCE_SECONDS = 15  # for each of the loads, each half of the one before
LOADS = 4
SHARE_OF_PAIRS = 0.4


@dataclass
class Record:
    """What a kind of fault did; seconds are counted from the fault's end, None: it never recovered.

    `evidence` counts what it is named for: cuts, sessions, lines, events, waiting connections.
    """

    times: int = 0
    evidence: int = 0
    answered_seconds: float = 0.0
    lag_seconds: float = 0.0
    unrecovered: int = 0


@dataclass
class Storm:
    """Inflicts faults on a system that users write to; the same seed draws the same ones."""

    system: System
    users: Users
    dice: random.Random
    pace: float = 1.0  # on how long faults and pauses last
    faults: Sequence[Fault] = FAULTS
    records: dict[str, Record] = field(default_factory=dict)
    tell: Callable[[str], None] = lambda _text: None

    async def rage(self, until: float | None = None, *, share_of_pairs: float = SHARE_OF_PAIRS) -> None:
        """Inflict until then (monotonic), or, without a time, every kind once."""
        while True:
            for faults in self._deal(share_of_pairs):
                await self._round(faults)
                if until is not None and time.monotonic() > until:
                    return
            if until is None:
                return

    def _deal(self, share_of_pairs: float) -> Iterator[list[Fault]]:
        """Deal a shuffled deck, alone or in pairs of faults that touch different parts."""
        deck = self.dice.sample(self.faults, len(self.faults))
        while deck:
            first = deck.pop()
            matching = [
                fault for fault in deck if not set(fault.touches.split()) & set(first.touches.split())
            ]
            if matching and self.dice.random() < share_of_pairs:
                deck.remove(matching[0])
                yield [first, matching[0]]
            else:
                yield [first]

    async def _round(self, faults: Sequence[Fault]) -> None:
        self.tell(" + ".join(fault.name for fault in faults))
        dices = [random.Random(self.dice.random()) for _ in faults]  # noqa: S311 - none takes from another's
        evidence = await asyncio.gather(
            *(fault.inflict(self.system, dice, self.pace) for fault, dice in zip(faults, dices, strict=True))
        )
        answered, lag = await self._recovered(time.monotonic())
        for fault, count in zip(faults, evidence, strict=True):
            record = self.records.setdefault(fault.name, Record())
            record.times += count > 0
            record.evidence += count
            record.unrecovered += answered is None or lag is None
            record.answered_seconds = max(record.answered_seconds, answered or 0.0)
            record.lag_seconds = max(record.lag_seconds, lag or 0.0)
        await asyncio.sleep(self.pace * self.dice.uniform(0.2, 1.0))

    async def _recovered(self, since: float) -> tuple[float | None, float | None]:
        """Return after how long writes were answered again and the lag was small again.

        A machine that is busy with others may be too slow for the load: while there is no recovery, it
        is halved, so that what is left cannot be the machine's fault.
        """
        waits = asyncio.gather(self.users.answered_again(since), self.system.lag.small_again(since))
        for _ in range(LOADS):
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(RECOVERY_PATIENCE_SECONDS):
                    return await asyncio.shield(waits)
            self.users.slow_down()
            self.tell(f"no recovery yet; the load is {self.users.per_second} writes a second from now on")
        waits.cancel()
        await asyncio.gather(waits, return_exceptions=True)
        return None, None
