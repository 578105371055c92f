"""What a fault is."""

import random
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from tests.chaos.system import System

Inflict = Callable[[System, random.Random, float], Awaitable[int]]


@dataclass(frozen=True)
class Fault:
    """A kind of fault. Two that touch the same part are never inflicted at once."""

    name: str
    touches: str
    inflict: Inflict  # with a dice, and a factor on how long it lasts
