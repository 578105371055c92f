"""The queue of arq, as far as the worker looks into it: whether our one job is there, and anything else.

Any client that can write to Redis can put anything there. Nothing of it is read: numbers are asked for, and
what is not ours is removed unseen.
"""

import math
import time
from dataclasses import dataclass

import structlog
from redis.asyncio import Redis
from redis.exceptions import ResponseError

from shared.redis.client import RedisCommand, exchange
from shared.redis.deployment import Names
from shared.redis.doorbell import dismiss, job_key
from shared.redis.faults import faults_in
from shared.redis.outage import Fault

logger = structlog.get_logger(__name__)

TELL_SECONDS = 60.0


@dataclass(frozen=True, slots=True)
class Seen:
    """What a look at the queue found."""

    is_rung: bool  # there is something to do: the look removed the job
    fault: Fault | None  # what Redis refuses


class QueueWatch:
    """Looks at the queue, shows that the worker lives, and removes what is no job of ours."""

    def __init__(self, redis: Redis, health_key: str, health_seconds: int) -> None:
        self._redis = redis
        self._health_key = health_key
        self._health_seconds = health_seconds
        self._healthy_at = -math.inf
        self._is_suspected = False
        self._strangers = 0  # not logged yet
        self._told_at = -math.inf

    async def look(self, names: Names | None, *, leave_ours: bool) -> Seen:
        """Look once, in one round trip, and in another remove what is there.

        Args:
            names: None while they are not known: then only the health key is written.
            leave_ours: our job is of a ring that is being answered.

        Raises:
            one of REDIS_ERRORS: Redis is away, or refuses us.

        """
        commands: list[RedisCommand] = []
        if is_due := time.monotonic() - self._healthy_at >= self._health_seconds:
            commands.append(("PSETEX", self._health_key, (self._health_seconds + 1) * 1000, "polls"))
        if names is not None:
            commands += [("ZSCORE", names.queue, names.job_id), ("ZCARD", names.queue)]
        answers = await exchange(self._redis, commands) if commands else []
        refused = faults_in([None if _is_wrong_type(answer) else answer for answer in answers], commands)
        if is_due and not isinstance(answers[0], ResponseError):
            self._healthy_at = time.monotonic()
        is_rung = False
        if names is not None and not refused:
            is_rung = await self._clear(names, *answers[-2:], leave_ours=leave_ours)
        return Seen(is_rung, refused[0] if refused else None)

    async def forget_health(self) -> None:
        """Remove the health key: the process ends."""
        await exchange(self._redis, [("DEL", self._health_key)])

    async def _clear(self, names: Names, score: object, count: object, *, leave_ours: bool) -> bool:
        """Remove what is in the queue; return whether there may have been a job of ours."""
        is_ours = not isinstance(score, ResponseError) and score is not None
        strangers = count - is_ours if isinstance(count, int) else 1
        # A ring, or an answer, may come between the two numbers: then the next look finds no stranger.
        is_certain = self._is_suspected or not isinstance(count, int)
        self._is_suspected = strangers > 0 and not is_certain
        self._tell(names)
        if strangers > 0 and is_certain:
            self._strangers += strangers
            await exchange(self._redis, [("UNLINK", names.queue), ("UNLINK", job_key(names))])
            return True
        return is_ours and not leave_ours and await dismiss(self._redis, names)

    def _tell(self, names: Names) -> None:
        if self._strangers and time.monotonic() - self._told_at >= TELL_SECONDS:
            logger.warning("strangers_dropped", queue=names.queue, entries=self._strangers)
            self._strangers, self._told_at = 0, time.monotonic()


def _is_wrong_type(answer: object) -> bool:
    return isinstance(answer, ResponseError) and str(answer).startswith("WRONGTYPE")
