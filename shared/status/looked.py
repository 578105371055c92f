"""One look and what it means; and one look at a time for all who ask at once."""

import asyncio

from sqlalchemy.ext.asyncio import AsyncEngine

from shared.postgres.faults import is_transient, sqlstate
from shared.status.look import look
from shared.verdict import commands
from shared.verdict.answer import Answer
from shared.verdict.facts import Facts
from shared.verdict.rules import answer_from

AnswerAndFacts = tuple[Answer, Facts | None]


async def looked(engine: AsyncEngine) -> AnswerAndFacts:
    """Return what one look shows; where PostgreSQL does not answer that is the verdict."""
    try:
        facts = await look(engine)
    except Exception as error:
        if not is_transient(error):
            raise
        what = sqlstate(error) or type(error).__name__
        sentence = f"PostgreSQL is away or busy ({what}): nothing is known."
        return Answer("database_away", sentence, [commands.PREFLIGHT, commands.WATCH]), None
    return answer_from(facts), facts


class Looks:
    """Looks for many callers: those who ask while one is under way share it, so they never queue."""

    def __init__(self, engine: AsyncEngine) -> None:
        self.engine = engine
        self._under_way: asyncio.Task[AnswerAndFacts] | None = None

    async def look(self) -> AnswerAndFacts:
        if self._under_way is None or self._under_way.done():
            self._under_way = asyncio.create_task(looked(self.engine), name="look")
        return await asyncio.shield(self._under_way)
