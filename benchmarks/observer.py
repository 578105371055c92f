"""Knowing when a write was applied, without asking the database: that would slow down what is measured."""

import asyncio
import json
from datetime import datetime


class Observer:
    """Reads the worker's log lines; each is stamped after the batch's COMMIT has returned."""

    def __init__(self) -> None:
        """Begin with nothing heard and nobody waiting."""
        self._applied: dict[int, asyncio.Future[float]] = {}

    def read(self, line: bytes) -> None:
        """Take note of a line that tells of an applied event."""
        if b'"event_settled"' not in line:
            return
        fields = json.loads(line)
        if fields["outcome"] == "applied":
            applied_at = datetime.fromisoformat(fields["timestamp"]).timestamp()
            self._future(fields["event_id"]).set_result(applied_at)

    async def applied(self, event_id: int) -> float:
        """Return the time at which the event's batch was known to be committed, in seconds since 1970."""
        return await self._future(event_id)

    def _future(self, event_id: int) -> asyncio.Future[float]:
        """Return the event's own future; the line may come before its writer asks."""
        return self._applied.setdefault(event_id, asyncio.get_running_loop().create_future())
