"""Who holds a run of a backfill or an audit: one process at a time, by the token that it drew.

A process may take a run whose holder has fallen silent, although that one may only be slow. It draws another
token into the row, and what the first one writes is refused from then on.
"""

import asyncio
import contextlib
import uuid
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from sqlalchemy import ColumnElement, Row, Table, func, select, update
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from shared.audit_runs import AuditRun
from shared.backfill_runs import BackfillRun
from shared.postgres.faults import is_transient

Run = TypeVar("Run", AuditRun, BackfillRun)

HEARTBEAT_SECONDS = 1
NOW = func.clock_timestamp()


class RunLostError(Exception):
    """The run is not this process's to go on with: another process took it, or an operator stopped it."""


@dataclass(frozen=True, slots=True)
class Runs(Generic[Run]):
    """A table of runs: what one is called, and the columns that one is made of, in their order."""

    name: str
    table: Table
    columns: Sequence[ColumnElement[Any]]
    make: Callable[..., Run]


@dataclass(frozen=True, slots=True)
class Custody(Generic[Run]):
    """One process's hold on a run, which is as it was when it was taken."""

    engine: AsyncEngine
    runs: Runs[Run]
    run: Run
    token: uuid.UUID

    async def write(self, values: Mapping[str, Any]) -> Run:
        """Write columns of the run, and that its holder lives; return the run as it is then.

        Raises:
            RunLostError: the run is lost; nothing was written.

        """
        async with self.engine.begin() as connection:
            return await self.write_in(connection, values)

    async def write_in(self, connection: AsyncConnection, values: Mapping[str, Any]) -> Run:
        """Do the same in the caller's transaction, which is to be rolled back where the run is lost."""
        written = await connection.execute(
            update(self.runs.table)
            .where(self._is_held, self.runs.table.c.status == "running")
            .values(heartbeat_at=NOW, **values)
            .returning(*self.runs.columns)
        )
        return self._unless_lost(written.one_or_none())

    async def lock(self, connection: AsyncConnection) -> Run:
        """Return the run as it is now, and keep it this process's until the caller's transaction ends.

        Raises:
            RunLostError: the run is lost.

        """
        locked = await connection.execute(
            select(*self.runs.columns)
            .where(self._is_held, self.runs.table.c.status == "running")
            .with_for_update()
        )
        return self._unless_lost(locked.one_or_none())

    async def let_go(self, values: Mapping[str, Any]) -> None:
        """Give the run back, and write columns of it; the next process need not wait for silence."""
        async with self.engine.begin() as connection:
            await connection.execute(
                update(self.runs.table).where(self._is_held).values(driver_token=None, **values)
            )

    @contextlib.asynccontextmanager
    async def kept(self) -> AsyncIterator[None]:
        """Show each second that this process lives, also while a long statement runs."""
        heart = asyncio.create_task(self._beat())
        try:
            yield
        finally:
            heart.cancel()
            await asyncio.gather(heart, return_exceptions=True)

    async def _beat(self) -> None:
        while True:
            await asyncio.sleep(HEARTBEAT_SECONDS)
            try:
                await self.write({})
            except RunLostError:
                return  # the next write of progress raises it
            except (SQLAlchemyError, OSError, TimeoutError) as error:
                if not is_transient(error):
                    raise

    @property
    def _is_held(self) -> ColumnElement[bool]:
        """A release without tokens takes an audit by writing its start, and leaves the token as it is."""
        run = self.runs.table.c
        return (
            (run.id == self.run.id)
            & (run.driver_token == self.token)
            & (run.started_at == self.run.started_at)
        )

    def _unless_lost(self, row: Row[Any] | None) -> Run:
        if row is None:
            raise RunLostError(f"{self.runs.name} {self.run.id} was taken up by another process.")
        return self.runs.make(*row)
