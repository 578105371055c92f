"""An operator who only types what is said gets from a bare database to moved reads, and back, under users."""

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Iterator
from typing import Any

import asyncpg
import httpx
import pytest

from shared.phase.phases import ORDER, Phase
from shared.verdict import commands
from tests.databases import Databases
from tests.drift import drained, drift
from tests.forked import run
from tests.legacy_rows import seed
from tests.log_lines import hold_printed
from tests.phase1.script import BEFORE_PHASE_1
from tests.processes import HANG_SECONDS, environment, running_api
from tests.status.operator import Operator, operator

MOST_LOOKS = 400
LISTS = 20
LIMITS = {
    "PHASE_WRITERS_SECONDS": "0.5",
    "PHASE_IN_SYNC_SECONDS": "0.5",
    "PHASE_LISTS_COMPARED": str(LISTS),
    "SHADOW_SHARE": "1",
}
LINK = """
    INSERT INTO project_collections (project_id, collection_id, research_context, tags)
    VALUES ('p2', 'c06', 'of the second project', '["tag"]')
"""
MINE = """
    INSERT INTO collections (collection_id, project_id, collection_name, created_by, is_active)
    VALUES ('mine', 'p1', 'name', 'owner', true)
"""
LINKED = ["c03", "c06"]  # to another project, by BEFORE_PHASE_1 and by LINK
TURNS = "SELECT kind, to_phase FROM phase_turns ORDER BY epoch"


@pytest.fixture
def bare_url(databases: Databases) -> Iterator[str]:
    with databases.clone("template1") as url:
        yield url


class Cutover:
    """The operator at `python -m worker.phase`, and every phase that was seen."""

    def __init__(self, person: Operator) -> None:
        self.person = person
        self.phases: list[str] = []
        self.typed: list[str] = []

    async def look(self, *words: str) -> dict[str, Any]:
        typed = ["-m", "worker.phase", *(words or ("status",)), "--json"]
        done = await asyncio.to_thread(run, typed, self.person.env, timeout=HANG_SECONDS)
        hold_printed(done.stderr)
        (line,) = done.stdout.splitlines()
        seen: dict[str, Any] = json.loads(line)
        if self.phases[-1:] != [seen["phase"]]:
            self.phases.append(seen["phase"])
        return seen

    async def until_nothing_is_left_to_do(self) -> dict[str, Any]:
        """Type what is said; a look at the phase is what each round begins with."""
        for _ in range(MOST_LOOKS):
            seen = await self.look()
            if not seen["next_steps"]:
                return seen
            for step in seen["next_steps"]:
                if step != commands.PHASE:
                    self.typed.append(step)
                    await self.person.type(step, "")
        raise AssertionError((self.phases, self.typed, seen))

    async def until_losses_are_counted(self) -> None:
        async with asyncio.timeout(HANG_SECONDS):
            while (await self.look())["losses"] is None:
                await asyncio.sleep(0.1)


@contextlib.asynccontextmanager
async def users(api: httpx.AsyncClient) -> AsyncIterator[list[int]]:
    """Read and write lists while the block lasts; yields the statuses of all answers."""
    answers: list[int] = []

    async def use() -> None:
        for number in range(10**9):
            context = {"description": f"text {number}"}
            answers.append((await api.put("/projects/p1/collections/mine", json=context)).status_code)
            lists = [await api.get(f"/projects/{project}/collections") for project in ("p1", "p2", "p3")]
            answers.extend(answer.status_code for answer in lists)
            await asyncio.sleep(0.02)

    using = asyncio.create_task(use())
    yield answers
    using.cancel()
    await asyncio.gather(using, return_exceptions=True)


async def listed(api: httpx.AsyncClient, project: str) -> set[str]:
    return {one["collection_id"] for one in (await api.get(f"/projects/{project}/collections")).json()}


@pytest.mark.slow
async def test_who_types_what_is_said_gets_from_nothing_to_moved_reads_and_back(
    bare_url: str, redis_url: str
) -> None:
    env = environment(bare_url, redis_url, **LIMITS)
    with operator(env) as person:
        await person.type((await person.see()).next_steps[0], "")
        sql = await asyncpg.connect(bare_url)
        await seed(sql)
        await sql.execute(BEFORE_PHASE_1)
        async with (
            running_api(env) as (_, url),
            httpx.AsyncClient(base_url=url, headers={"User-ID": "owner"}, timeout=HANG_SECONDS) as api,
        ):
            await sql.execute(MINE)
            async with users(api) as answers:
                assert (await person.until_all_is_well())[0] == "not_backfilled"
                assert list((await person.see()).next_steps) == [commands.PHASE]
                await sql.execute(LINK)
                cutover = Cutover(person)
                seen = await cutover.until_nothing_is_left_to_do()
                assert cutover.phases == list(ORDER)
                assert cutover.typed.count(commands.ADVANCE) == len(ORDER) - 1
                assert commands.CAPTURE in cutover.typed
                assert seen["turns"][0]["kind"] == "advance"
                assert {*LINKED} <= await listed(api, "p2")
                await person.until("in_sync")

                await cutover.until_losses_are_counted()
                back = await cutover.look("back", "--reason", "a rehearsal")
                assert (back["phase"], back["turned"]["from_phase"]) == ("shadow_reads", "reads_moved")
                lost = back["turned"]["losses"]
                assert (lost["further_links"], lost["tags"], lost["without_home"]) == (2, 1, 0)
                assert not {*LINKED} & await listed(api, "p2")
                await person.until("in_sync")
        assert set(answers) == {200}
        assert len(answers) > LISTS
        turns = [tuple(row) for row in await sql.fetch(TURNS)]
        assert turns == [*(("advance", phase) for phase in ORDER[1:]), ("back", Phase.SHADOW_READS)]
        gates = json.loads(await sql.fetchval("SELECT gates FROM phase_turns WHERE epoch = 4"))
        assert all(gate["is_met"] for gate in gates)
        await drained(sql)
        assert sorted(await drift(sql)) == LINKED
        await sql.close()
